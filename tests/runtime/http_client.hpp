// What a test needs of a client: a loopback socket, bytes in, bytes out, all within bounds.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace modalkv {

class HttpConnection {
 public:
  explicit HttpConnection(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~HttpConnection() { ::close(socket_); }
  HttpConnection(HttpConnection&&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// All until the server closes, or `seconds` have passed.
  std::string receive(int seconds = 30) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    std::string all;
    closed_ = false;
    while (std::chrono::steady_clock::now() < until) {
      pollfd ready{socket_, POLLIN, 0};
      if (::poll(&ready, 1, 100) <= 0) continue;
      char bytes[4096];
      const auto count = ::recv(socket_, bytes, sizeof(bytes), 0);
      if (count <= 0) {
        closed_ = true;
        break;
      }
      all.append(bytes, static_cast<std::size_t>(count));
    }
    return all;
  }
  bool closed_by_server() const { return closed_; }

 private:
  int socket_;
  bool connected_ = false, closed_ = false;
};

struct HttpAnswer {
  int status = 0;  ///< 0: none
  std::string head, body;
};

inline HttpAnswer parse_answer(const std::string& text) {
  HttpAnswer answer;
  const auto end = text.find("\r\n\r\n");
  if (!text.starts_with("HTTP/1.1 ") || end == std::string::npos) return answer;
  answer.status = std::stoi(text.substr(9, 3));
  answer.head = text.substr(0, end + 2);
  answer.body = text.substr(end + 4);
  return answer;
}

inline HttpAnswer http_get(std::uint16_t port, const std::string& path,
                           const std::string& method = "GET") {
  HttpConnection connection(port);
  if (!connection.connected() ||
      !connection.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    return {};
  return parse_answer(connection.receive());
}

}  // namespace modalkv
