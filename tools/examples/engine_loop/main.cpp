// An engine's loop around modalkv: a toy decoder with random weights answers two chats about one
// image, once with all KV in 16 bits on the device, once with a device too small for that. What
// both chats begin with is computed once.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "modalkv/content.hpp"
#include "modalkv/runtime.hpp"

namespace {

using modalkv::Status;
using modalkv::Tokens;

// bfloat16 is the upper half of a float.
std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

struct Matrix {
  Matrix(int rows, int columns, std::mt19937& random)
      : columns(columns),
        weights(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns)) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(columns)));
    for (float& weight : weights) weight = normal(random);
  }
  // to[r] = sum over c of weights[r, c] from[c]
  void multiply(const float* from, std::vector<float>& to) const {
    to.resize(weights.size() / static_cast<std::size_t>(columns));
    const float* row = weights.data();
    for (float& sum : to) {
      sum = 0;
      for (int c = 0; c < columns; ++c) sum += row[c] * from[c];
      row += columns;
    }
  }
  int columns;
  std::vector<float> weights;
};

constexpr int kLayers = 4, kQueryHeads = 8, kKvHeads = 2, kHeadDim = 64, kHidden = 256,
              kVocabulary = 512, kChunk = 128, kImage = 576;
constexpr std::size_t kQueryRow = kQueryHeads * kHeadDim, kKvRow = kKvHeads * kHeadDim;

struct Layer {
  explicit Layer(std::mt19937& random)
      : query(kQueryRow, kHidden, random),
        key(kKvRow, kHidden, random),
        value(kKvRow, kHidden, random),
        output(kHidden, kQueryRow, random) {}
  Matrix query, key, value, output;
};

struct Prompt {
  std::vector<modalkv::Segment> segments;
  std::vector<std::vector<float>> embeddings;  // what enters the first layer, token by token
};

std::vector<std::int32_t> random_words(int count, std::mt19937& random) {
  std::uniform_int_distribution<std::int32_t> word(0, kVocabulary - 1);
  std::vector<std::int32_t> words(static_cast<std::size_t>(count));
  for (std::int32_t& id : words) id = word(random);
  return words;
}

class Engine {
 public:
  explicit Engine(const modalkv::RuntimeConfig& config) : runtime_(config) {
    for (int i = 0; i < kLayers; ++i) layers_.emplace_back(random_);
    // What the runtime reads and writes lies in memory that it knows.
    runtime_.register_memory(std::as_writable_bytes(std::span(buffer_)));
  }

  /// Each segment says what its content is: what a prompt begins with that others began with too
  /// need not be computed again.
  Prompt make_prompt(const std::vector<std::int32_t>& instructions, unsigned image,
                     const std::vector<std::int32_t>& question) const {
    Prompt prompt;
    add_text(prompt, instructions);
    // By a number. A real engine hashes the pixels, and how they are prepared.
    prompt.segments.push_back({modalkv::TokenClass::image, kImage, {{image, 0, 0, 1}}});
    std::mt19937 random(image);
    std::normal_distribution<float> normal;
    for (int token = 0; token < kImage; ++token) {
      prompt.embeddings.emplace_back(kHidden);
      for (float& element : prompt.embeddings.back()) element = normal(random);
    }
    add_text(prompt, question);
    return prompt;
  }

  /// The next tokens, each the likeliest.
  std::vector<int> answer(const Prompt& prompt, int new_tokens) {
    const auto begun = runtime_.begin(prompt.segments);
    if (!begun) throw std::runtime_error("a segment is empty");
    const modalkv::SequenceId sequence = begun->sequence;
    const std::vector<std::vector<float>>& embeddings = prompt.embeddings;
    std::printf("%lld of %zu prompt tokens are reused\n", static_cast<long long>(begun->reused),
                embeddings.size());
    std::vector<int> tokens;
    std::vector<float> last;
    // Prefill of the rest, in chunks: of what is reused only the KV is needed. At least one token
    // is left, whose state gives the first of the answer.
    for (auto at = static_cast<std::size_t>(begun->reused); at < embeddings.size(); at += kChunk)
      last = forward(sequence, {embeddings.begin() + static_cast<std::ptrdiff_t>(at),
                                embeddings.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                         at + kChunk, embeddings.size()))});
    for (int i = 0; i < new_tokens; ++i) {  // decode
      std::vector<float> logits;
      head_.multiply(last.data(), logits);
      tokens.push_back(
          static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      last = forward(sequence, {embedding(tokens.back())});
    }
    std::printf("%s", runtime_.describe().c_str());
    check(runtime_.release(sequence), "release");
    return tokens;
  }

  const modalkv::RuntimeCounters& counters() const { return runtime_.counters(); }

 private:
  static void check(Status status, const char* what) {
    if (status != Status::ok)
      throw std::runtime_error(std::string(what) + ": " + std::string(modalkv::name(status)));
  }
  std::vector<float> embedding(std::int32_t word) const {
    const float* row = &embedding_.weights[static_cast<std::size_t>(word) * kHidden];
    return {row, row + kHidden};
  }
  void add_text(Prompt& prompt, const std::vector<std::int32_t>& words) const {
    prompt.segments.push_back({modalkv::TokenClass::text, static_cast<Tokens>(words.size()),
                               modalkv::content_of_tokens(words)});
    for (const std::int32_t word : words) prompt.embeddings.push_back(embedding(word));
  }
  // No room now: let something end, and try again.
  template <typename Call>
  Status when_there_is_room(Call call) {
    Status status = call();
    for (int i = 0; status == Status::busy && i < 1000; ++i) {
      if (const auto event = runtime_.poll(10 * modalkv::kMillisecond);
          event && event->kind == modalkv::RuntimeEvent::Kind::lost)
        throw std::runtime_error("KV was lost: a real engine would truncate and recompute");
      status = call();
    }
    return status;
  }

  // One step: `hidden` are the states of the sequence's next tokens. Returns the last token's.
  std::vector<float> forward(modalkv::SequenceId sequence, std::vector<std::vector<float>> hidden) {
    const std::size_t count = hidden.size();
    std::uint16_t* queries = buffer_.data();
    std::uint16_t* keys = queries + count * kQueryRow;
    std::uint16_t* values = keys + count * kKvRow;
    std::uint16_t* outputs = values + count * kKvRow;
    const auto address = [&](std::uint16_t* begin, std::size_t elements) {
      return runtime_.address(begin, static_cast<modalkv::Bytes>(elements * 2));
    };
    for (int l = 0; l < kLayers; ++l) {
      const Layer& layer = layers_[static_cast<std::size_t>(l)];
      for (std::size_t t = 0; t < count; ++t) {
        project(layer.query, hidden[t], queries + t * kQueryRow);
        project(layer.key, hidden[t], keys + t * kKvRow);
        project(layer.value, hidden[t], values + t * kKvRow);
      }
      const auto tokens = static_cast<Tokens>(count);
      check(when_there_is_room([&] {
              const modalkv::AppendRequest request{sequence, tokens, address(keys, count * kKvRow),
                                                   address(values, count * kKvRow)};
              return runtime_.append({&request, 1}, l);
            }),
            "append");
      const modalkv::AttendRequest request{sequence, tokens, address(queries, count * kQueryRow),
                                           address(outputs, count * kQueryRow)};
      modalkv::Attended attended;
      check(when_there_is_room([&] {
              attended = runtime_.attend(std::span(&request, 1), l);
              return attended.status;
            }),
            "attend");
      check(runtime_.wait(attended.step, 10 * modalkv::kSecond), "attention");
      std::vector<float> row(kQueryRow), added;
      for (std::size_t t = 0; t < count; ++t) {
        for (std::size_t i = 0; i < kQueryRow; ++i) row[i] = from_bf16(outputs[t * kQueryRow + i]);
        layer.output.multiply(row.data(), added);
        for (std::size_t i = 0; i < kHidden; ++i) hidden[t][i] += added[i];
      }
    }
    return hidden.back();
  }

  void project(const Matrix& matrix, const std::vector<float>& from, std::uint16_t* to) {
    matrix.multiply(from.data(), projected_);
    for (std::size_t i = 0; i < projected_.size(); ++i) to[i] = to_bf16(projected_[i]);
  }

  std::mt19937 random_{1};
  std::vector<Layer> layers_;
  Matrix embedding_{kVocabulary, kHidden, random_}, head_{kVocabulary, kHidden, random_};
  std::vector<std::uint16_t> buffer_ =
      std::vector<std::uint16_t>(kChunk * 2 * (kQueryRow + kKvRow));
  std::vector<float> projected_;
  modalkv::Runtime runtime_;  // last: it is gone before the memory that it knows
};

std::vector<int> run(const char* title, const modalkv::RuntimeConfig& config) {
  std::printf("== %s\n", title);
  Engine engine(config);
  std::mt19937 random(2);
  const std::vector<std::int32_t> instructions = random_words(12, random);
  const std::vector<int> tokens =
      engine.answer(engine.make_prompt(instructions, 7, random_words(20, random)), 32);
  std::printf("-- another question about the same image\n");
  engine.answer(engine.make_prompt(instructions, 7, random_words(20, random)), 32);
  const modalkv::RuntimeCounters& counters = engine.counters();
  std::printf("%lld pages compressed, %lld bytes left for the host, %lld streamed back\n\n",
              static_cast<long long>(counters.compressed_pages),
              static_cast<long long>(counters.left_bytes),
              static_cast<long long>(counters.streamed_bytes));
  return tokens;
}

}  // namespace

int main() try {
  modalkv::RuntimeConfig config;
  config.layers = kLayers;
  config.query_heads = kQueryHeads;
  config.kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  config.input = modalkv::NumberFormat::bf16;
  config.policy.high = modalkv::both(modalkv::bf16());
  config.staging_slot_bytes = 128 * modalkv::kKiB;
  config.partials_bytes = 8 * modalkv::kMiB;
  config.device_bytes = 32 * modalkv::kMiB;
  config.host_bytes = 64 * modalkv::kMiB;
  const std::vector<int> exact = run("16 bits, on the device", config);

  // A tenth of the memory for KV: image tokens may be compressed, and leave.
  config.device_bytes = 9 * modalkv::kMiB;
  config.policy.selection = modalkv::Selection::text_centric;
  config.policy.keep = 0.1;
  config.policy.visual_low = modalkv::both(modalkv::int4_token_head());
  config.policy.places.streamed = true;
  const std::vector<int> compressed = run("text-centric, on a small device", config);

  int equal = 0;
  while (equal < static_cast<int>(exact.size()) &&
         exact[static_cast<std::size_t>(equal)] == compressed[static_cast<std::size_t>(equal)])
    ++equal;
  std::printf("the first %d of %zu answered tokens are the same\n", equal, exact.size());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "engine_loop: %s\n", error.what());
  return 1;
}
