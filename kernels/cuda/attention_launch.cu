#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attend_formats.hpp"
#include "kernels/cuda/attend_operands.hpp"
#include "kernels/cuda/attention_launch.hpp"
#include "kernels/cuda/merge_kernel.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr std::int64_t kLeastWarpStages = 2;  // less is not worth a warp's queries

/// A group of at least a whole vector is one of it.
ElementFormat without_whole_groups(ElementFormat format, int head_dim) {
  if (!format.per_channel && format.group >= head_dim) format.group = 0;
  return format;
}

/// The kernels for pages of a shape, which becomes what they call it.
const AttendFormat& find_kernels(PageShape& page) {
  KvFormat whole = page.format;
  whole.key = without_whole_groups(whole.key, page.head_dim);
  whole.value = without_whole_groups(whole.value, page.head_dim);
  for (const KvFormat& format : {page.format, whole}) {
    const AttendFormat* found = nullptr;
    const auto look = [&](const auto& kernels) {
      for (const AttendFormat& each : kernels)
        if (found == nullptr && each.has(format)) found = &each;
    };
    look(kAttend16Bit);
    look(kAttend8Bit);
    look(kAttendMixed);
    look(kAttendInt4);
    look(kAttendSmall);
    if (found == nullptr) continue;
    page.format = format;
    return *found;
  }
  return kAttendAny;
}

/// Divides the tokens of a launch's tasks among blocks.
class Splits {
 public:
  Splits(AttendLaunch& launch, const AttendKernelSize& size, const GpuLaunch& on)
      : launch_(launch), scratch_(on.scratch) {
    const AttendShape& shape = launch.shape;
    const std::int64_t heads =
        divide_up(shape.head_rows(), size.rows) * std::int64_t{shape.page.kv_heads};
    const std::int64_t wanted =
        std::max(1, on.multiprocessors) * std::int64_t{size.blocks_a_multiprocessor} / heads;
    std::int64_t tiles = 0;
    for (std::int32_t i = 0; i < launch.tasks; ++i) tiles += tiles_of(i);
    std::int64_t each = std::max(divide_up(tiles, std::max<std::int64_t>(1, wanted)),
                                 kLeastWarpStages * size.warps * size.tiles);
    // Rounded up for each task, there may be a few too many.
    while (parts(each) > std::max<std::int64_t>(wanted, launch.tasks)) each += divide_up(each, 32);
    while (scratch_bytes(each) > static_cast<Bytes>(scratch_.size())) each *= 2;
    divide(each);
  }

  int splits() const { return splits_; }
  /// What is to be merged afterwards.
  const MergeLaunch& merges() const { return merges_; }

 private:
  std::int64_t tiles_of(std::int32_t task) const {
    return divide_up(launch_.task[task].tokens, Tokens{16});
  }
  std::int64_t rows() const {
    return std::int64_t{launch_.shape.query_tokens} * launch_.shape.query_heads;
  }
  Bytes part_bytes() const { return partial_bytes(rows(), launch_.shape.page.head_dim); }
  std::int64_t parts(std::int64_t tiles) const {
    std::int64_t count = 0;
    for (std::int32_t i = 0; i < launch_.tasks; ++i) count += divide_up(tiles_of(i), tiles);
    return count;
  }
  Bytes scratch_bytes(std::int64_t tiles) const {
    Bytes bytes = 0;
    for (std::int32_t i = 0; i < launch_.tasks; ++i) {
      const std::int64_t parts = divide_up(tiles_of(i), tiles);
      if (parts > 1) bytes += parts * part_bytes();
    }
    return bytes;
  }

  void divide(std::int64_t most) {
    std::byte* scratch = scratch_.data();
    merges_.rows = rows();
    merges_.head_dim = launch_.shape.page.head_dim;
    merges_.status = launch_.status;
    for (std::int32_t i = 0; i < launch_.tasks; ++i) {
      AttendTask& task = launch_.task[i];
      const std::int64_t parts = divide_up(tiles_of(i), most);
      task.first_split = splits_;
      task.split_tiles = static_cast<std::int32_t>(divide_up(tiles_of(i), parts));
      splits_ += static_cast<std::int32_t>(divide_up(tiles_of(i), task.split_tiles));
      const std::int32_t used = splits_ - task.first_split;
      if (used == 1) continue;
      merges_.task[merges_.tasks++] = {reinterpret_cast<const float*>(scratch), task.partials,
                                       used};
      task.partials = reinterpret_cast<float*>(scratch);
      scratch += used * part_bytes();
    }
  }

  AttendLaunch& launch_;
  std::span<std::byte> scratch_;
  MergeLaunch merges_{};
  std::int32_t splits_ = 0;
};

GpuError launch_together(std::span<const Attend> ops, SpaceMemory memory, const GpuLaunch& on) {
  AttendLaunch launch{};
  launch.shape = attend_shape(ops.front(), memory);
  launch.status = on.status;
  for (const Attend& op : ops)
    launch.task[launch.tasks++] = attend_task(op, as<float>(op.partials, memory), memory);
  const AttendFormat& kernels = find_kernels(launch.shape.page);
  const Splits splits(launch, kernels.size(launch.shape.page.head_dim, launch.shape.head_rows()),
                      on);
  const GpuError error = kernels.launch(launch, splits.splits(), on.stream);
  if (error != 0 || splits.merges().tasks == 0) return error;
  return launch_merges(splits.merges(), on.stream);
}

}  // namespace

GpuError launch_attend(std::span<const Attend> ops, SpaceMemory memory, const GpuLaunch& launch) {
  while (!ops.empty()) {
    std::size_t count = 1;
    while (count < ops.size() && count < kMostTasks && are_alike(ops[0], ops[count])) ++count;
    if (const GpuError error = launch_together(ops.first(count), memory, launch); error != 0)
      return error;
    ops = ops.subspan(count);
  }
  return 0;
}

bool attend_is_general(const PageShape& shape) {
  PageShape page = shape;
  return &find_kernels(page) == &kAttendAny;
}

}  // namespace modalkv::MODALKV_GPU
