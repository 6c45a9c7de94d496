#include "runtime/admin_server.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "offload/trace_json.hpp"

namespace modalkv {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kDiscardedBytes = 64 * 1024;

enum Page : unsigned { kMetrics = 1, kState = 2, kTrace = 4 };

std::chrono::nanoseconds duration(Nanos ns) {
  return std::chrono::nanoseconds(ns);
}

using Response = http::response<http::string_body>;

Response answer(http::status status, std::string body, std::string_view type = "text/plain") {
  Response response(status, 11);
  response.set(http::field::content_type, {type.data(), type.size()});
  response.set(http::field::cache_control, "no-store");
  response.keep_alive(false);
  response.body() = std::move(body);
  response.prepare_payload();
  return response;
}

// What the client is told of a request that could not be read; nothing where nobody listens.
std::optional<Response> complaint(const error_code& error) {
  if (error.category() != http::make_error_code(http::error::bad_method).category() ||
      error == http::error::end_of_stream)
    return {};
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return answer(http::status::request_header_fields_too_large, "the request is too long\n");
  return answer(http::status::bad_request, fmt::format("no HTTP request: {}\n", error.message()));
}

}  // namespace

class AdminServer::Impl {
 public:
  Impl(const AdminConfig& config, std::vector<QueueInfo> queues, AdminSnapshot first,
       const AdminLimits& limits, std::atomic<unsigned>& wanted)
      : limits_(limits), queues_(std::move(queues)), wanted_(wanted) {
    store(std::move(first));
    listen(config);
    asio::co_spawn(io_, accept(), [](std::exception_ptr) {});
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Impl() {
    io_.stop();
    thread_.join();
  }

  std::uint16_t port() const { return port_; }

  void publish(AdminSnapshot snapshot) {
    store(std::move(snapshot));
    asio::post(io_, [this] {
      for (asio::steady_timer* timer : waiting_) timer->cancel();
    });
  }

 private:
  template <typename Value>
  struct Published {
    Value value{};
    Clock::time_point at{};
  };

  // While it exists, publishing ends its timer's wait.
  class Waiting {
   public:
    Waiting(std::vector<asio::steady_timer*>& waiting, asio::steady_timer& timer)
        : waiting_(waiting), timer_(&timer) {
      waiting_.push_back(timer_);
    }
    ~Waiting() { std::erase(waiting_, timer_); }
    Waiting(Waiting&&) = delete;

   private:
    std::vector<asio::steady_timer*>& waiting_;
    asio::steady_timer* timer_;
  };

  void listen(const AdminConfig& config) try {
    const tcp::endpoint endpoint(asio::ip::make_address(config.address), config.port);
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
    port_ = acceptor_.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    throw Error(fmt::format("admin server: cannot listen on {} port {}: {}", config.address,
                            config.port, error.code().message()));
  }

  void store(AdminSnapshot snapshot) {
    const std::lock_guard lock(mutex_);
    if (snapshot.metrics) metrics_ = {std::move(*snapshot.metrics), snapshot.at};
    if (snapshot.state) state_ = {std::move(*snapshot.state), snapshot.at};
    if (snapshot.groups) groups_ = {std::move(*snapshot.groups), snapshot.at};
  }

  Clock::time_point published(Page page) {
    const std::lock_guard lock(mutex_);
    return page == kMetrics ? metrics_.at : page == kState ? state_.at : groups_.at;
  }

  asio::awaitable<void> accept() {
    while (true) {
      while (sessions_ >= limits_.connections) {
        freed_.expires_at(Clock::time_point::max());
        co_await freed_.async_wait(kAwait);
      }
      auto [error, socket] = co_await acceptor_.async_accept(kAwait);
      if (error) {  // no descriptors, perhaps: not at once again
        freed_.expires_after(std::chrono::milliseconds(50));
        co_await freed_.async_wait(kAwait);
        continue;
      }
      ++sessions_;
      asio::co_spawn(io_, serve(beast::tcp_stream(std::move(socket))), [this](std::exception_ptr) {
        --sessions_;
        freed_.cancel();
      });
    }
  }

  // One request a connection.
  asio::awaitable<void> serve(beast::tcp_stream stream) {
    stream.expires_after(duration(limits_.client_ns));
    beast::flat_buffer buffer(limits_.request_bytes);
    http::request_parser<http::empty_body> parser;
    parser.header_limit(static_cast<std::uint32_t>(limits_.request_bytes));
    const auto [error, read] = co_await http::async_read_header(stream, buffer, parser, kAwait);
    std::optional<Response> response = error ? complaint(error) : std::nullopt;
    if (!error) response = co_await respond(parser.get());
    if (!response) co_return;
    stream.expires_after(duration(limits_.client_ns));
    const auto [failed, written] = co_await http::async_write(stream, *response, kAwait);
    if (failed) co_return;
    // Closing a socket with unread bytes would take the answer back.
    error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
    std::array<char, 1024> bytes;
    for (std::size_t discarded = 0; discarded < kDiscardedBytes;) {
      const auto [end, count] = co_await stream.async_read_some(asio::buffer(bytes), kAwait);
      if (end) co_return;
      discarded += count;
    }
  }

  asio::awaitable<Response> respond(const http::request<http::empty_body>& request) {
    const std::string_view target(request.target().data(), request.target().size());
    const std::string_view path = target.substr(0, target.find('?'));
    const Page page = path == "/metrics" ? kMetrics : path == "/state" ? kState : kTrace;
    if (path != "/healthz" && page == kTrace && path != "/trace")
      co_return answer(http::status::not_found,
                       "there are /metrics, /state, /trace and /healthz\n");
    if (request.method() != http::verb::get) {
      Response response = answer(http::status::method_not_allowed, "GET only\n");
      response.set(http::field::allow, "GET");
      co_return response;
    }
    if (path == "/healthz") co_return answer(http::status::ok, "ok\n");
    co_await fresh(page);
    co_return show(page);
  }

  // Until the engine's thread has published what it is asked for now, or will not soon.
  asio::awaitable<void> fresh(Page page) {
    const auto asked = Clock::now();
    wanted_.fetch_or(page, std::memory_order_relaxed);
    asio::steady_timer timer(io_, asked + duration(limits_.fresh_ns));
    const Waiting waiting(waiting_, timer);
    while (published(page) < asked && Clock::now() < timer.expiry())
      co_await timer.async_wait(kAwait);
  }

  Response show(Page page) {
    const std::lock_guard lock(mutex_);
    const auto age = [](Clock::time_point at) -> Nanos {
      return std::max<Nanos>((Clock::now() - at) / std::chrono::nanoseconds(1), 0);
    };
    switch (page) {
      case kMetrics:
        return answer(http::status::ok, prometheus_text(metrics_.value, age(metrics_.at)),
                      "text/plain; version=0.0.4; charset=utf-8");
      case kState: {
        Response response = answer(http::status::ok, state_.value, "text/plain; charset=utf-8");
        response.set(http::field::age, std::to_string(age(state_.at) / kSecond));
        return response;
      }
      case kTrace:
        break;
    }
    Response response =
        answer(http::status::ok, trace_json(queues_, groups_.value), "application/json");
    response.set(http::field::age, std::to_string(age(groups_.at) / kSecond));
    return response;
  }

  const AdminLimits limits_;
  const std::vector<QueueInfo> queues_;
  std::atomic<unsigned>& wanted_;
  std::mutex mutex_;  // of what is published
  Published<RuntimeMetrics> metrics_;
  Published<std::string> state_;
  Published<std::vector<TracedGroup>> groups_;
  // From here on of the server's thread. What sessions use outlives `io_`, which ends them.
  std::vector<asio::steady_timer*> waiting_;
  int sessions_ = 0;
  std::uint16_t port_ = 0;
  asio::io_context io_{1};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer freed_{io_};  // ends when a session does
  std::thread thread_;
};

AdminServer::AdminServer(const AdminConfig& config, std::vector<QueueInfo> queues,
                         AdminSnapshot first, const AdminLimits& limits)
    : impl_(std::make_unique<Impl>(config, std::move(queues), std::move(first), limits, wanted_)) {}

AdminServer::~AdminServer() = default;

std::uint16_t AdminServer::port() const {
  return impl_->port();
}

AdminServer::Wanted AdminServer::take_wanted() {
  const unsigned pages = wanted_.exchange(0, std::memory_order_acq_rel);
  return {(pages & kMetrics) != 0, (pages & kState) != 0, (pages & kTrace) != 0};
}

void AdminServer::publish(AdminSnapshot snapshot) {
  impl_->publish(std::move(snapshot));
}

}  // namespace modalkv
