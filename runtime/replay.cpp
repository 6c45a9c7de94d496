#include "runtime/replay.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "modalkv/error.hpp"
#include "runtime/replay_recorder.hpp"
#include "runtime/step_timer.hpp"
#include "scheduler/admission.hpp"
#include "scheduler/batch_demand.hpp"
#include "scheduler/batcher.hpp"
#include "scheduler/cost_model.hpp"
#include "scheduler/planner.hpp"
#include "scheduler/residency.hpp"
#include "scheduler/reuse_cache.hpp"

namespace modalkv {
namespace {

Nanos scaled_arrival_ns(const Request& request, double rate_scale) {
  return static_cast<Nanos>(std::llround(static_cast<double>(request.arrival_ns) / rate_scale));
}

// Of the running sequences: KV at the end of a step, and with whole prompts.
struct BatchTokens {
  GroupTokens held{}, reserved{};
};

void add(GroupTokens& to, const GroupTokens& tokens) {
  for (std::size_t g = 0; g < to.size(); ++g) to[g] += tokens[g];
}

}  // namespace

class Replay::Impl {
 public:
  Impl(const Trace& trace, const ReplayConfig& config)
      : trace_(trace),
        config_(config),
        belief_(config.model, config.hardware),
        actual_(config.model, config.actual_hardware.value_or(config.hardware)),
        demand_(config_.model, config_.policy, belief_, config.limits.memory_utilization),
        batcher_({config.limits.max_sequences, config.limits.max_step_tokens}),
        reuse_({.text = demand_.stored_token_bytes(Permission::text_low),
                .visual = demand_.stored_token_bytes(Permission::visual_low)}),
        recorder_(config, trace.requests.size()) {
    const Bytes token_bytes = config.model.layers * demand_.high_bytes();
    const Bytes budget_bytes = demand_.device_budget_bytes();
    if (budget_bytes < token_bytes)
      throw Error(config.model.name + " does not fit " + config.hardware.name + ": weights of " +
                  std::to_string(belief_.weight_bytes() / kMiB) +
                  " MiB and workspace leave no GPU memory for KV; choose a larger GPU or a "
                  "smaller model");
    recorder_.set_capacity({.device_kv_budget_bytes = budget_bytes,
                            .host_kv_budget_bytes = demand_.host_budget_bytes(),
                            .weight_bytes = belief_.weight_bytes(),
                            .kv_bytes_per_token = token_bytes,
                            .device_tokens_16bit = budget_bytes / token_bytes});
  }

  bool advance(std::int64_t steps) {
    for (std::int64_t i = 0; i < steps; ++i)
      if (!step()) return false;
    return true;
  }

  std::int64_t requests_done() const { return recorder_.requests_done(); }

  ReplayResult finish() { return recorder_.finish(residency_.replans()); }

 private:
  // --- the queue

  void receive_arrivals() {
    while (next_arrival_ < trace_.requests.size()) {
      const Request& request = trace_.requests[next_arrival_];
      const Nanos arrival_ns = scaled_arrival_ns(request, config_.rate_scale);
      if (arrival_ns > now_ns_) return;
      const auto index = static_cast<std::uint32_t>(next_arrival_++);
      recorder_.arrived(index, arrival_ns, request.prompt_tokens, request.visual_tokens,
                        batcher_.waiting());
      const Sequence sequence{.request = index,
                              .prompt = request.prompt_tokens,
                              .visual = request.visual_tokens,
                              .images = request.images,
                              .output = request.output_tokens};
      if (request.prompt_tokens + request.output_tokens > config_.model.context_tokens) {
        recorder_.not_run(index, RequestState::beyond_context);
      } else if (!fits_alone(sequence)) {
        recorder_.not_run(index, RequestState::too_large);
      } else {
        batcher_.enqueue(sequence);
      }
    }
  }

  bool fits_alone(const Sequence& sequence) const {
    GroupTokens tokens{};
    demand_.add(tokens, sequence, round_up(sequence.prompt + sequence.output, kPageTokens));
    return can_fit(demand_.problem(tokens));
  }

  void admit(BatchTokens& batch) {
    while (const Sequence* candidate = batcher_.candidate()) {
      GroupTokens with = batch.reserved;
      demand_.add(with, *candidate, candidate->reserved_tokens());
      if (!may_join(batch.reserved, with, *candidate)) return;
      recorder_.scheduled(candidate->request, now_ns_);
      const ReuseCache::Prefix prefix = reusable_prefix(*candidate);
      batcher_.admit(prefix.tokens);
      take_over(prefix);
      batch.reserved = with;
      const Sequence& joined = batcher_.running().back();
      demand_.add(batch.held, joined, joined.held_tokens());
    }
  }

  bool may_join(const GroupTokens& without, const GroupTokens& with, const Sequence& candidate) {
    const auto running = static_cast<Tokens>(batcher_.running().size());
    if (running == 0) return true;  // alone, everything that was enqueued fits
    if (refused_) return false;
    const StepProblem after = problem_of(with);
    if (!can_fit(after)) return false;
    if (config_.admission == AdmissionRule::memory) return true;
    // All in GPU memory in 16 bits: there is nothing to lose.
    if (config_.policy.places.resident && placement_fits(after, first_choice(after))) return true;
    GroupTokens later_without = without, later_with = with;
    for (const Sequence& sequence : batcher_.running())
      for (GroupTokens* tokens : {&later_without, &later_with}) add_growth(*tokens, sequence);
    add_growth(later_with, candidate);
    refused_ = !keeps_throughput(decode_problem(later_without, running),
                                 decode_problem(later_with, running + 1), running);
    return !refused_;
  }

  // Half of what it will still produce, if it is like those that have finished.
  void add_growth(GroupTokens& tokens, const Sequence& sequence) const {
    if (finished_ == 0) return;
    const Tokens mean = finished_output_ / finished_;
    const Tokens growth = std::max<Tokens>(0, mean - sequence.produced) / 2;
    GroupTokens before{}, after{};
    demand_.add(before, sequence, sequence.reserved_tokens());
    demand_.add(after, sequence, sequence.reserved_tokens() + growth);
    for (std::size_t g = 0; g < tokens.size(); ++g) tokens[g] += after[g] - before[g];
  }

  // --- reuse of KV that the host still holds

  // Nothing where loading would take longer than computing.
  ReuseCache::Prefix reusable_prefix(const Sequence& sequence) {
    if (demand_.host_budget_bytes() == 0) return {};
    ReuseCache::Prefix prefix = reuse_.find(trace_.segments_of(trace_.requests[sequence.request]));
    if (prefix.tokens == 0) return {};
    prefix.tokens =
        std::min(prefix.tokens, sequence.prompt - 1);  // the last token yields the logits
    const ComputeTimes compute = belief_.compute({.prefill_tokens = prefix.tokens});
    const Nanos compute_ns =
        config_.model.layers * (compute.before_attention_ns + compute.after_attention_ns);
    const Nanos load_ns =
        belief_.h2d_ns(prefix.bytes, CostModel::piece_bytes(demand_.high_bytes()));
    return load_ns < compute_ns ? prefix : ReuseCache::Prefix{};
  }

  void take_over(const ReuseCache::Prefix& prefix) {
    if (prefix.tokens == 0) return;
    Sequence& sequence = batcher_.running().back();
    sequence.images_encoded = prefix.images;
    loaded_bytes_ += prefix.bytes;
    recorder_.reused(sequence.request, prefix.tokens);
    if (config_.policy.visual_low)
      residency_.add_encoded(Permission::visual_low, prefix.visual_tokens);
    if (config_.policy.text_low)
      residency_.add_encoded(Permission::text_low, prefix.tokens - prefix.visual_tokens);
  }

  void keep_for_reuse(const Sequence& sequence) {
    if (demand_.host_budget_bytes() == 0) return;
    kept_bytes_ += reuse_.insert(trace_.segments_of(trace_.requests[sequence.request]));
  }

  // --- one step

  bool step() {
    receive_arrivals();
    if (batcher_.idle()) {
      if (next_arrival_ == trace_.requests.size()) return false;
      now_ns_ =
          std::max(now_ns_, scaled_arrival_ns(trace_.requests[next_arrival_], config_.rate_scale));
      timer_.restart(now_ns_);
      return true;
    }
    batcher_.begin_step();
    BatchTokens batch = batch_tokens();
    while (batcher_.running().size() > 1 && !can_fit(problem_of(batch.reserved))) {
      preempt(batch.held);
      batch = batch_tokens();
    }
    admit(batch);
    StepProblem problem = problem_of(batch.held);
    while (!residency_.place(problem, decode_compute())) {
      preempt(batch.held);
      batch = batch_tokens();
      problem = problem_of(batch.held);
    }
    run(problem);
    return true;
  }

  void preempt(const GroupTokens& before) {
    GroupTokens left{};
    const Sequence& youngest = batcher_.running().back();
    demand_.add(left, youngest, youngest.held_tokens());
    residency_.remove(before, left);
    recorder_.preempted(youngest.request);
    batcher_.preempt_youngest();
    refused_ = false;
  }

  void run(StepProblem& problem) {
    const BatchShape shape = batch_shape(problem);
    const Migration& migration = residency_.migration();
    const Transfers transfers{
        .to_device_bytes = migration.to_device_bytes + std::exchange(loaded_bytes_, 0),
        .to_host_bytes = migration.to_host_bytes + std::exchange(kept_bytes_, 0),
        .encode_bytes = migration.encode_bytes};
    Nanos predicted_ns = 0;
    if (config_.actual_hardware) {
      problem.compute = belief_.compute(shape);
      StepTimer guess = timer_;
      const StepRecord predicted = guess.run(problem, residency_.placement(), transfers);
      predicted_ns = predicted.end_ns - predicted.begin_ns;
    }
    problem.cost = &actual_;
    problem.compute = actual_.compute(shape);
    StepRecord record = timer_.run(problem, residency_.placement(), transfers);
    reuse_.set_capacity(demand_.host_budget_bytes() - record.host_kv_bytes);
    record.reuse_bytes = reuse_.used_bytes();
    record.decode_sequences = static_cast<std::int32_t>(shape.decode_tokens);
    record.prefill_tokens = shape.prefill_tokens;
    record.waiting_requests = static_cast<std::int32_t>(batcher_.waiting());
    finish_step(record, problem, predicted_ns);
  }

  void finish_step(const StepRecord& record, const StepProblem& problem, Nanos predicted_ns) {
    now_ns_ = record.end_ns;
    GroupTokens held{};
    Tokens tokens = 0;
    for (int g = 0; g < problem.demand.group_count; ++g) {
      held[static_cast<std::size_t>(g)] = problem.demand.groups[static_cast<std::size_t>(g)].tokens;
      if (g < kPermissions) tokens += held[static_cast<std::size_t>(g)];
    }
    recorder_.step(record, tokens, problem.compute.vision_ns, predicted_ns);

    bool any_finished = false;
    GroupTokens left{};
    for (Sequence& sequence : batcher_.running()) {
      const bool yields = sequence.chunk > 0 && sequence.context() >= sequence.prompt;
      if (!yields) continue;
      if (sequence.produced == 0) keep_for_reuse(sequence);
      recorder_.token(sequence.request, sequence.last_token_ns, now_ns_, sequence.produced == 0);
      if (sequence.produced + 1 < sequence.output) continue;
      any_finished = true;
      ++finished_;
      finished_output_ += sequence.output;
      recorder_.finished(sequence.request, now_ns_, sequence.output);
      demand_.add(left, sequence, sequence.held_tokens());
    }
    batcher_.end_step(now_ns_);
    if (!any_finished) return;
    batcher_.remove_finished();
    residency_.remove(held, left);
    refused_ = false;
  }

  // --- sums over sequences

  BatchTokens batch_tokens() const {
    BatchTokens batch;
    for (const Sequence& sequence : batcher_.running()) {
      GroupTokens held{};
      demand_.add(held, sequence, sequence.held_tokens());
      add(batch.held, held);
      if (sequence.decoding()) {  // its prompt is there
        add(batch.reserved, held);
      } else {
        demand_.add(batch.reserved, sequence, sequence.reserved_tokens());
      }
    }
    return batch;
  }

  StepProblem problem_of(const GroupTokens& tokens) const {
    StepProblem problem = demand_.problem(tokens);
    residency_.annotate(problem);
    return problem;
  }

  StepProblem decode_problem(const GroupTokens& tokens, Tokens sequences) const {
    StepProblem problem = problem_of(tokens);
    problem.compute = belief_.compute({.decode_tokens = sequences, .sampled_tokens = sequences});
    return problem;
  }

  ComputeTimes decode_compute() const {
    const auto sequences = static_cast<Tokens>(batcher_.running().size());
    return belief_.compute({.decode_tokens = sequences, .sampled_tokens = sequences});
  }

  // What this step computes; also notes which images are encoded in it.
  BatchShape batch_shape(StepProblem& problem) {
    BatchShape shape;
    Tokens decode_context = 0, stored_context = 0, all_context = 0;
    for (Sequence& sequence : batcher_.running()) {
      all_context += sequence.context();
      stored_context += sequence.computed;
      if (sequence.chunk == 0) continue;
      if (sequence.decoding()) {
        ++shape.decode_tokens;
        decode_context += sequence.context();
        continue;
      }
      shape.prefill_tokens += sequence.chunk;
      const auto chunk = static_cast<double>(sequence.chunk);
      shape.prefill_pairs += chunk * (static_cast<double>(sequence.computed) + chunk / 2);
      if (sequence.context() >= sequence.prompt) ++shape.sampled_tokens;
      add_new_images(shape, sequence);
    }
    shape.sampled_tokens += shape.decode_tokens;
    const auto all = static_cast<double>(all_context);
    problem.decode_share = static_cast<double>(decode_context) / all;
    problem.stored_share = static_cast<double>(stored_context) / all;
    return shape;
  }

  // An image is encoded whole in the step that reaches its first token.
  void add_new_images(BatchShape& shape, Sequence& sequence) const {
    if (sequence.images_encoded >= sequence.images || sequence.visual == 0) return;
    const double tokens_each =
        static_cast<double>(sequence.visual) / static_cast<double>(sequence.images);
    const auto reached = static_cast<std::int32_t>(std::min<double>(
        sequence.images,
        std::ceil(static_cast<double>(std::min(sequence.context(), sequence.visual)) /
                  tokens_each)));
    actual_.add_images(shape, reached - sequence.images_encoded, tokens_each);
    sequence.images_encoded = reached;
  }

  const Trace& trace_;
  ReplayConfig config_;
  CostModel belief_;
  CostModel actual_;
  BatchDemand demand_;
  Batcher batcher_;
  Residency residency_;
  ReuseCache reuse_;
  ReplayRecorder recorder_;
  StepTimer timer_;

  std::size_t next_arrival_ = 0;
  Nanos now_ns_ = 0;
  bool refused_ = false;    // the head of the queue, until the batch changes
  Bytes loaded_bytes_ = 0;  // from the reuse cache, in the step to come
  Bytes kept_bytes_ = 0;    // to the reuse cache
  Tokens finished_output_ = 0;
  std::int64_t finished_ = 0;
};

Replay::Replay(const Trace& trace, const ReplayConfig& config)
    : impl_(std::make_unique<Impl>(trace, config)) {}
Replay::~Replay() = default;
Replay::Replay(Replay&&) noexcept = default;
Replay& Replay::operator=(Replay&&) noexcept = default;
bool Replay::advance(std::int64_t steps) {
  return impl_->advance(steps);
}
std::int64_t Replay::requests_done() const {
  return impl_->requests_done();
}
ReplayResult Replay::finish() {
  return impl_->finish();
}

}  // namespace modalkv
