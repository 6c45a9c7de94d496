#include "runtime/step_program.hpp"

#include <algorithm>
#include <map>

namespace modalkv {
namespace {

constexpr SpaceId kDevice{0};
constexpr SpaceId kHost{1};

std::size_t index(Action action) {
  return static_cast<std::size_t>(action);
}

// A run of pages of one layer and one format.
struct PageRun {
  PageShape shape{};
  Tokens tokens = 0;
  Address pages{};

  /// What a link gets in one piece.
  Bytes piece_bytes() const {
    return CostModel::piece_bytes(divide_up(page_bytes(shape), shape.tokens));
  }
};

class ProgramBuilder {
 public:
  ProgramBuilder(const ModelGeometry& model, const StepProblem& problem, const Placement& placement,
                 const HostProfile& host, int sequences)
      : model_(model),
        problem_(problem),
        placement_(placement),
        host_(host),
        sequences_(sequences),
        slot_reader_(static_cast<std::size_t>(placement.staging_slots)) {
    queries_ = take(kDevice, Bytes{model.q_heads} * model.head_dim * 2);
    host_queries_ = take(kHost, queries_.bytes);
    partial_bytes_ = partial_bytes(model.q_heads, model.head_dim);
    output_ = take(kDevice, partial_bytes_);
    lay_out();
  }

  StepProgram build(int steps) {
    for (int step = 0; step < steps; ++step) {
      for (int layer = 0; layer < problem_.layers; ++layer) add_layer(layer);
      last_ = submit({.queue = QueueKind::compute, .ops = {EngineWork{problem_.compute.step_ns}}});
      program_.step_ends.push_back(last_);
    }
    program_.device_bytes = used_[kDevice.index];
    program_.host_bytes = used_[kHost.index];
    return std::move(program_);
  }

 private:
  // What one layer keeps where.
  struct LayerRuns {
    std::vector<PageRun> resident, streamed, cpu;
  };

  Address take(SpaceId space, Bytes bytes) {
    Bytes& used = used_[space.index];
    const Address address{space, used, bytes};
    used += round_up(bytes, kPageAlignmentBytes);
    return address;
  }

  std::size_t submit(Submission submission) {
    program_.submissions.push_back(std::move(submission));
    return program_.submissions.size() - 1;
  }

  PageRun run_of(SpaceId space, const KvFormat& format, Tokens tokens) {
    PageRun run{.shape = {kPageTokens, model_.kv_heads, model_.head_dim, format}, .tokens = tokens};
    run.pages = take(space, divide_up(tokens, kPageTokens) * page_bytes(run.shape));
    return run;
  }

  void lay_out() {
    Tokens most_tokens = 0;
    layers_.resize(static_cast<std::size_t>(problem_.layers));
    for (int l = 0; l < problem_.layers; ++l) {
      LayerRuns& runs = layers_[static_cast<std::size_t>(l)];
      for (int g = 0; g < problem_.demand.group_count; ++g) {
        const auto i = static_cast<std::size_t>(g);
        const DemandGroup& group = problem_.demand.groups[i];
        if (group.kind != problem_.kind_of(l) || group.tokens == 0) continue;
        most_tokens = std::max(most_tokens, group.tokens);
        const TokenSplit split = split_tokens(group, placement_.shares[i]);
        const PrecisionPolicy& policy = *problem_.policy;
        const bool visual = i == static_cast<std::size_t>(Permission::visual_low);
        const KvFormat low = (visual ? policy.visual_low : policy.text_low).value_or(policy.high);
        const auto add = [&](std::vector<PageRun>& to, SpaceId space, Action high_action,
                             Action low_action) {
          for (const auto& [action, format] :
               {std::pair{high_action, policy.high}, std::pair{low_action, low}})
            if (split[index(action)] > 0) to.push_back(run_of(space, format, split[index(action)]));
        };
        add(runs.resident, kDevice, Action::resident_high, Action::resident_low);
        add(runs.streamed, kHost, Action::streamed_high, Action::streamed_low);
        add(runs.cpu, kHost, Action::cpu_high, Action::cpu_low);
      }
    }
    Bytes slot_bytes = 0;
    for (const LayerRuns& runs : layers_) {
      Bytes bytes = 0;
      for (const PageRun& run : runs.streamed) bytes += run.pages.bytes;
      slot_bytes = std::max(slot_bytes, bytes);
    }
    for (std::size_t slot = 0; slot < slot_reader_.size() && slot_bytes > 0; ++slot)
      slots_.push_back(take(kDevice, slot_bytes));
    const Bytes table_bytes = divide_up(most_tokens, kPageTokens) * kPageTableEntryBytes;
    tables_[kDevice.index] = take(kDevice, table_bytes);
    tables_[kHost.index] = take(kHost, table_bytes);
    // Of a sequence at most: two formats of each group, resident and staged, or on each node.
    const auto places = std::max<std::size_t>(2, host_.numa_nodes.value.size());
    const auto partials =
        static_cast<Bytes>(sequences_) * kMaxGroups * 2 * static_cast<Bytes>(places);
    partials_[kDevice.index] = take(kDevice, 2 * partials * partial_bytes_);  // the CPU's as well
    partials_[kHost.index] = take(kHost, partials * partial_bytes_);
  }

  // Attention to a run, a sequence at a time; each partial gets a place of its own.
  void attend(const PageRun& run, std::vector<Op>& ops, int& partials) {
    const SpaceId space = run.pages.space;
    const Tokens pages = divide_up(run.tokens, kPageTokens);
    Tokens first = 0;
    for (int s = 0; s < sequences_; ++s) {
      const Tokens last = pages * (s + 1) / sequences_;
      const Tokens tokens = std::min(run.tokens, last * kPageTokens) - first * kPageTokens;
      if (last == first || tokens <= 0) continue;
      Address table = tables_[space.index];
      table.bytes = (last - first) * kPageTableEntryBytes;
      Address partial = partials_[space.index];
      partial.offset += partials++ * partial_bytes_;
      partial.bytes = partial_bytes_;
      ops.push_back(Attend{.queries = space == kDevice ? queries_ : host_queries_,
                           .pages = run.pages,
                           .page_table = table,
                           .partials = partial,
                           .shape = run.shape,
                           .tokens = tokens,
                           .query_heads = model_.q_heads,
                           .query_tokens = 1});
      first = last;
    }
  }

  void add_layer(int l) {
    const LayerRuns& runs = layers_[static_cast<std::size_t>(l)];
    int device_partials = 0, host_partials = 0;
    last_ = submit(
        {.queue = QueueKind::compute, .ops = {EngineWork{problem_.compute.before_attention_ns}}});
    const std::vector<std::size_t> on_host = attend_on_host(runs.cpu, host_partials);

    std::vector<Op> resident{EngineWork{problem_.compute.fresh_attention_ns}};
    for (const PageRun& run : runs.resident) attend(run, resident, device_partials);
    submit({.queue = QueueKind::compute, .ops = std::move(resident)});
    if (!runs.streamed.empty()) attend_streamed(runs.streamed, device_partials);

    // The GPU reads the CPU's partials from pinned memory itself.
    std::vector<Op> after;
    const Bytes host_bytes = host_partials * partial_bytes_;
    const Bytes device_bytes = device_partials * partial_bytes_;
    Address all = partials_[kDevice.index];
    if (host_bytes > 0) {
      after.push_back(Copy{{kHost, partials_[kHost.index].offset, host_bytes},
                           {kDevice, all.offset + device_bytes, host_bytes}});
    }
    const int parts = device_partials + host_partials;
    all.bytes = host_bytes + device_bytes;
    if (parts > 1) after.push_back(Merge{all, output_, parts, model_.q_heads, model_.head_dim});
    after.push_back(EngineWork{problem_.compute.after_attention_ns});
    submit({.queue = QueueKind::compute, .ops = std::move(after), .after = on_host});
  }

  std::vector<std::size_t> attend_on_host(const std::vector<PageRun>& runs, int& partials) {
    std::vector<std::size_t> submitted;
    if (runs.empty()) return submitted;
    const auto& nodes = host_.numa_nodes.value;
    double all_bytes_per_s = 0, below = 0;
    for (const NumaNode& node : nodes) all_bytes_per_s += node.dram_bytes_per_s;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      const double from = below / all_bytes_per_s;
      below += nodes[n].dram_bytes_per_s;
      const double until = n + 1 == nodes.size() ? 1 : below / all_bytes_per_s;
      std::vector<Op> ops;
      for (PageRun run : runs) {
        const auto part = [&](double share) {
          return static_cast<Tokens>(share * static_cast<double>(run.tokens));
        };
        run.tokens = part(until) - part(from);
        if (run.tokens > 0) attend(run, ops, partials);
      }
      submitted.push_back(submit({.queue = QueueKind::host,
                                  .numa_node = static_cast<int>(n),
                                  .ops = std::move(ops),
                                  .after = {last_}}));
    }
    return submitted;
  }

  void attend_streamed(const std::vector<PageRun>& runs, int& partials) {
    const std::size_t slot = next_slot_;
    next_slot_ = (next_slot_ + 1) % slots_.size();
    Submission copies{.queue = QueueKind::h2d, .ops = {}, .after = {}};
    if (slot_reader_[slot] > 0) copies.after.push_back(slot_reader_[slot]);
    std::vector<PageRun> staged = runs;
    Bytes offset = slots_[slot].offset;
    for (PageRun& run : staged) {
      // The last piece takes what is left over: links collapse on small ones.
      const Bytes pieces = std::max<Bytes>(1, run.pages.bytes / run.piece_bytes());
      for (Bytes p = 0, done = 0; p < pieces; ++p) {
        const Bytes bytes = p + 1 < pieces ? run.piece_bytes() : run.pages.bytes - done;
        copies.ops.push_back(
            Copy{{kHost, run.pages.offset + done, bytes}, {kDevice, offset + done, bytes}});
        done += bytes;
      }
      run.pages = {kDevice, offset, run.pages.bytes};
      offset += run.pages.bytes;
    }
    const std::size_t copied = submit(std::move(copies));
    std::vector<Op> ops;
    for (const PageRun& run : staged) attend(run, ops, partials);
    slot_reader_[slot] =
        submit({.queue = QueueKind::compute, .ops = std::move(ops), .after = {copied}});
  }

  const ModelGeometry& model_;
  const StepProblem& problem_;
  const Placement& placement_;
  const HostProfile& host_;
  const int sequences_;
  StepProgram program_;
  std::array<Bytes, 2> used_{};  // of each space
  Address queries_, host_queries_, output_;
  Bytes partial_bytes_ = 0;
  std::array<Address, 2> tables_{}, partials_{};
  std::vector<LayerRuns> layers_;
  std::vector<Address> slots_;
  std::vector<std::size_t> slot_reader_;  // the newest; 0: none yet
  std::size_t next_slot_ = 0;
  std::size_t last_ = 0;  // of the compute queue, after which the layer's queries exist
};

}  // namespace

StepProgram decode_program(const ModelGeometry& model, const StepProblem& problem,
                           const Placement& placement, const HostProfile& host, int sequences,
                           int steps) {
  return ProgramBuilder(model, problem, placement, host, sequences).build(steps);
}

ProgramRun run_program(Device& device, const StepProgram& program) {
  ProgramRun run;
  const auto note = [&run](Status status) {
    if (run.status == Status::ok) run.status = status;
  };
  for (const auto& [kind, bytes] : {std::pair{SpaceInfo::Kind::device, program.device_bytes},
                                    std::pair{SpaceInfo::Kind::host, program.host_bytes}})
    note(device.register_space({kind, std::max<Bytes>(bytes, 1), nullptr}).status);

  std::map<std::uint64_t, Nanos> ends_ns;  // by ticket
  const auto collect = [&] {
    const auto completion = device.next_completion(kMaxWaitNanos);
    if (!completion) return false;
    note(completion->status);
    ends_ns[completion->ticket.id] = completion->at_ns;
    return true;
  };
  std::vector<Ticket> tickets;
  for (const Submission& submission : program.submissions) {
    const auto queue = find_queue(device, submission.queue, submission.numa_node);
    std::vector<Ticket> after;
    for (const std::size_t earlier : submission.after) after.push_back(tickets[earlier]);
    Submitted submitted{Status::unsupported, {}};
    while (queue) {
      submitted = device.submit(*queue, submission.ops, after);
      if (submitted.status != Status::busy) break;
      ++run.times_busy;
      if (!collect()) break;
    }
    note(submitted.status);
    if (submitted.status != Status::ok) break;
    tickets.push_back(submitted.ticket);
  }
  while (collect()) {
  }
  if (run.status == Status::ok)
    for (const std::size_t end : program.step_ends)
      run.step_end_ns.push_back(ends_ns.at(tickets[end].id));
  return run;
}

}  // namespace modalkv
