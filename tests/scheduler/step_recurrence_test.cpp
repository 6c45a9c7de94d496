#include "scheduler/step_recurrence.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <queue>
#include <random>
#include <string>
#include <vector>

namespace modalkv {
namespace {

// The same pipeline told as tasks in three first-in first-out queues with dependencies, a counter
// of free staging slots and a heap of events. It knows nothing of recurrences.
class EventSimulation {
 public:
  EventSimulation(int slots, Nanos handover_ns) : free_slots_(slots), handover_ns_(handover_ns) {}

  void add_step(const std::vector<LayerTimes>& layers, Nanos step_ns) {
    for (const LayerTimes& layer : layers) {
      const int before = add(kGpu, layer.before_attention_ns);
      add(kGpu, layer.attend_resident_ns);
      if (layer.copy_ns > 0) {
        const int copy = add(kLink, layer.copy_ns);
        const int read = add(kGpu, layer.attend_streamed_ns);
        tasks_[static_cast<std::size_t>(read)].frees_slot = true;
        after(copy, read, 0);
      }
      const int end = add(kGpu, layer.after_attention_ns);
      if (layer.cpu_ns > 0) {
        const int attend = add(kCpu, layer.cpu_ns);
        after(before, attend, handover_ns_);
        after(attend, end, handover_ns_);
      }
    }
    step_tasks_.push_back(add(kGpu, step_ns));
  }

  /// When each step ends.
  std::vector<Nanos> run() {
    start_what_can(0);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      Task& task = tasks_[static_cast<std::size_t>(event.task)];
      if (event.arrival) {
        --task.waits_for;
      } else {
        busy_[static_cast<std::size_t>(task.queue)] = false;
        task.end_ns = event.at_ns;
        if (task.frees_slot) ++free_slots_;
        for (const auto& [next, delay_ns] : task.then)
          events_.push({event.at_ns + delay_ns, next, true});
      }
      start_what_can(event.at_ns);
    }
    std::vector<Nanos> ends;
    for (const int task : step_tasks_)
      ends.push_back(tasks_[static_cast<std::size_t>(task)].end_ns);
    return ends;
  }

 private:
  enum Queue { kLink, kCpu, kGpu, kQueues };
  struct Task {
    Queue queue;
    Nanos duration_ns;
    int waits_for = 0;
    bool frees_slot = false;
    Nanos end_ns = -1;
    std::vector<std::pair<int, Nanos>> then{};
  };
  struct Event {
    Nanos at_ns;
    int task;
    bool arrival;  // of something that the task waits for; else its end
    bool operator<(const Event& other) const { return at_ns > other.at_ns; }
  };

  int add(Queue queue, Nanos duration_ns) {
    tasks_.push_back({queue, duration_ns});
    queues_[queue].push_back(static_cast<int>(tasks_.size()) - 1);
    return queues_[queue].back();
  }
  void after(int first, int second, Nanos delay_ns) {
    tasks_[static_cast<std::size_t>(first)].then.push_back({second, delay_ns});
    ++tasks_[static_cast<std::size_t>(second)].waits_for;
  }
  void start_what_can(Nanos now_ns) {
    for (int queue = 0; queue < kQueues; ++queue) {
      auto& waiting = queues_[queue];
      if (busy_[queue] || waiting.empty()) continue;
      const Task& head = tasks_[static_cast<std::size_t>(waiting.front())];
      if (head.waits_for > 0 || (queue == kLink && free_slots_ == 0)) continue;
      if (queue == kLink) --free_slots_;
      busy_[queue] = true;
      events_.push({now_ns + head.duration_ns, waiting.front(), false});
      waiting.pop_front();
    }
  }

  int free_slots_;
  Nanos handover_ns_;
  std::vector<Task> tasks_;
  std::deque<int> queues_[kQueues];
  bool busy_[kQueues] = {};
  std::priority_queue<Event> events_;
  std::vector<int> step_tasks_;
};

struct Scenario {
  std::vector<std::vector<LayerTimes>> steps{};  // each with its layers
  Nanos step_ns = 0;
  Nanos handover_ns = 0;
  int slots = 1;
};

Scenario random_scenario(std::uint64_t seed, std::size_t steps, bool alike) {
  std::mt19937_64 random(seed);
  const auto up_to = [&](Nanos most) {
    return std::uniform_int_distribution<Nanos>(0, most)(random);
  };
  Scenario scenario{.step_ns = up_to(300),
                    .handover_ns = up_to(20),
                    .slots = static_cast<int>(1 + up_to(kMaxStagingSlots - 1))};
  const auto layers = static_cast<std::size_t>(1 + up_to(8));
  const Nanos copy_most = 1 + up_to(400), cpu_most = 1 + up_to(200);
  for (std::size_t s = 0; s < steps; ++s) {
    if (alike && s > 0) {
      scenario.steps.push_back(scenario.steps.front());
      continue;
    }
    std::vector<LayerTimes> step;
    for (std::size_t l = 0; l < layers; ++l) {
      LayerTimes layer{.before_attention_ns = up_to(50),
                       .attend_resident_ns = up_to(50),
                       .after_attention_ns = up_to(100)};
      if (up_to(3) > 0) {
        layer.copy_ns = 1 + up_to(copy_most);
        layer.attend_streamed_ns = up_to(60);
      }
      if (up_to(2) == 0) layer.cpu_ns = 1 + up_to(cpu_most);
      step.push_back(layer);
    }
    scenario.steps.push_back(step);
  }
  return scenario;
}

std::vector<Nanos> step_ends(const Scenario& scenario, Nanos start_ns = 0) {
  Pipeline pipeline = Pipeline::idle_at(start_ns);
  std::vector<Nanos> ends;
  for (const auto& step : scenario.steps)
    ends.push_back(
        run_step(pipeline, step, scenario.step_ns, scenario.handover_ns, scenario.slots).end_ns);
  return ends;
}

TEST(StepRecurrence, AgreesWithAnEventDrivenSimulation) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Scenario scenario = random_scenario(seed, 5, seed % 2 == 0);
    EventSimulation simulation(scenario.slots, scenario.handover_ns);
    for (const auto& step : scenario.steps) simulation.add_step(step, scenario.step_ns);
    ASSERT_EQ(step_ends(scenario), simulation.run());
  }
}

TEST(StepRecurrence, OnlyTheDistanceFromTheStartMatters) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Scenario scenario = random_scenario(seed, 4, false);
    std::vector<Nanos> early = step_ends(scenario);
    for (Nanos& end : early) end += 12345;
    ASSERT_EQ(step_ends(scenario, 12345), early);
  }
}

TEST(StepRecurrence, GpuAloneIsASum) {
  Pipeline pipeline = Pipeline::idle_at(100);
  const std::vector<LayerTimes> layers(
      3, {.before_attention_ns = 1, .attend_resident_ns = 10, .after_attention_ns = 5});
  const StepTiming timing = run_step(pipeline, layers, 7, 1000, 2);
  EXPECT_EQ(timing.begin_ns, 100);
  EXPECT_EQ(timing.end_ns, 100 + 3 * 16 + 7);
  EXPECT_EQ(timing.gpu_busy_ns, 3 * 16 + 7);
  EXPECT_EQ(timing.link_busy_ns, 0);
  EXPECT_EQ(timing.cpu_busy_ns, 0);
}

// Two layers, copies of 100, 10 before, 20 from the slot, 30 after; 5 at the end.
//   2 slots: copies end at 100, 200; step one ends at 200 + 20 + 30 + 5 = 255; in step two the
//            copies run 200..300 and 300..400: it ends at 455.
//   1 slot:  copies end at 100, 220 (the slot is read until 120); step one ends at 275. Then
//            240..340, read until 360; 360..460: 515.
TEST(StepRecurrence, CopiesWaitForTheLinkAndForTheSlotsLastReader) {
  const std::vector<LayerTimes> layers(2, {.before_attention_ns = 10,
                                           .attend_streamed_ns = 20,
                                           .after_attention_ns = 30,
                                           .copy_ns = 100});
  for (const auto& [slots, first, second] :
       {std::tuple{2, 255, 455}, std::tuple{1, 275, 515}, std::tuple{8, 255, 455}}) {
    Pipeline pipeline = Pipeline::idle_at(0);
    EXPECT_EQ(run_step(pipeline, layers, 5, 0, slots).end_ns, first) << slots << " slots";
    const StepTiming timing = run_step(pipeline, layers, 5, 0, slots);
    EXPECT_EQ(timing.begin_ns, first);
    EXPECT_EQ(timing.end_ns, second) << slots << " slots";
    EXPECT_EQ(timing.link_busy_ns, 200);
    EXPECT_EQ(timing.gpu_busy_ns, 2 * 60 + 5);
    EXPECT_EQ(steady_step_ns(layers, 5, 0, slots), second - first);
  }
}

// Queries at 10; the CPU has them at 14, is done at 114, and the GPU knows at 118.
TEST(StepRecurrence, CpuAttentionPaysTwoHandovers) {
  Pipeline pipeline = Pipeline::idle_at(0);
  const std::vector<LayerTimes> layers = {{.before_attention_ns = 10,
                                           .attend_resident_ns = 50,
                                           .after_attention_ns = 30,
                                           .cpu_ns = 100}};
  const StepTiming timing = run_step(pipeline, layers, 0, 4, 1);
  EXPECT_EQ(timing.end_ns, 148);
  EXPECT_EQ(timing.cpu_busy_ns, 100);
}

TEST(StepRecurrence, ALongerPartNeverEndsAnyStepSooner) {
  constexpr Nanos LayerTimes::*kParts[] = {&LayerTimes::before_attention_ns,
                                           &LayerTimes::attend_resident_ns,
                                           &LayerTimes::attend_streamed_ns,
                                           &LayerTimes::after_attention_ns,
                                           &LayerTimes::copy_ns,
                                           &LayerTimes::cpu_ns};
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Scenario scenario = random_scenario(seed, 3, false);
    const std::vector<Nanos> ends = step_ends(scenario);
    const auto not_sooner = [&](const char* what) {
      const std::vector<Nanos> slower = step_ends(scenario);
      for (std::size_t s = 0; s < ends.size(); ++s) ASSERT_GE(slower[s], ends[s]) << what;
    };
    for (auto& step : scenario.steps)
      for (LayerTimes& layer : step)
        for (const auto part : kParts) {
          const Nanos kept = layer.*part;
          layer.*part += 37;
          not_sooner("a part of a layer");
          layer.*part = kept;
        }
    scenario.step_ns += 37;
    not_sooner("once a step");
    scenario.step_ns -= 37;
    scenario.handover_ns += 37;
    not_sooner("handover");
    scenario.handover_ns -= 37;
    for (; scenario.slots > 1; --scenario.slots) not_sooner("fewer slots");
  }
}

TEST(StepRecurrence, SteadyStepIsWhatAStepTakesInTheLongRun) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Scenario scenario = random_scenario(seed, 40, true);
    const std::vector<Nanos> ends = step_ends(scenario);
    const Nanos steady =
        steady_step_ns(scenario.steps[0], scenario.step_ns, scenario.handover_ns, scenario.slots);
    ASSERT_EQ(ends[39] - ends[15], 24 * steady);
  }
}

}  // namespace
}  // namespace modalkv
