// gpu_check PHASE [JSON_FILE]: what only a GPU can show.
//   device         CudaDevice over the real driver
//   kernels        every kernel against the host, all shapes
//   kernels-small  those that a sanitizer gets through
//   bench          rates of the link, the memory and the kernels
// Ends with 0: all is well; 1: something is wrong, or MODALKV_REQUIRE_GPU=1 and there is no GPU;
// 77: there is no GPU, so nothing was run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "modalkv/error.hpp"
#include "offload/cuda/cuda_driver.hpp"
#include "offload/gpu_probe.hpp"
#include "tests/gpu/device_checks.hpp"
#include "tests/gpu/gpu_bench.hpp"

namespace modalkv {
namespace {

constexpr int kNotRun = 77;

std::string json_text(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

int checked(const CheckReport& report) {
  for (const std::string& failure : report.failures())
    std::fprintf(stderr, "FAILED %s\n", failure.c_str());
  std::printf("%d cases, %zu failures\n", report.cases(), report.failures().size());
  return report.failures().empty() && report.cases() > 0 ? 0 : 1;
}

int bench(GpuDriver& driver, const GpuInfo& gpu, const char* json_file) {
  const auto all = measure_gpu(driver, 1);
  std::printf("%s\n%-72s %10s %10s\n", gpu.name.c_str(), "", "median", "best");
  for (const Measured& one : all)
    std::printf("%-72s %10.1f %10.1f %s\n", one.what.c_str(), one.value, one.best,
                one.unit.c_str());
  if (json_file == nullptr) return 0;
  std::ofstream json(json_file);
  json << "{\n  \"schema_version\": 1,\n  \"gpu\": " << json_text(gpu.name)
       << ",\n  \"compute_capability\": \"" << gpu.compute_major << '.' << gpu.compute_minor
       << "\",\n  \"memory_bytes\": " << gpu.memory_bytes << ",\n  \"measured\": [";
  const char* comma = "";
  for (const Measured& one : all) {
    json << comma << "\n    {\"what\": " << json_text(one.what) << ", \"median\": " << one.value
         << ", \"best\": " << one.best << ", \"unit\": " << json_text(one.unit) << "}";
    comma = ",";
  }
  json << "\n  ]\n}\n";
  return json.good() ? 0 : 1;
}

int run(const std::string& phase, const char* json_file) {
  const GpuProbe probe = probe_gpus();
  if (probe.gpus.empty()) {
    const char* required = std::getenv("MODALKV_REQUIRE_GPU");
    const bool must = required != nullptr && std::strcmp(required, "1") == 0;
    std::printf("%s: %s: no GPU (%s)\n", phase.c_str(), must ? "FAILED" : "not run",
                probe.reason.c_str());
    return must ? 1 : kNotRun;
  }
  const auto driver = open_cuda_driver({.scratch_bytes = 8 * kMiB});
  CheckReport report;
  if (phase == "device") {
    check_device(*driver, report);
    // The same by kernels and single copies, for drivers that have no words or batches.
    const auto plain = open_cuda_driver(
        {.scratch_bytes = 8 * kMiB, .uses_stream_words = false, .uses_batched_copies = false});
    check_device(*plain, report);
  } else if (phase == "bench") {
    return bench(*driver, probe.gpus.front(), json_file);
  } else {
    check_kernels(*driver, kernel_cases(phase == "kernels-small"), report);
  }
  return checked(report);
}

}  // namespace
}  // namespace modalkv

int main(int argc, char** argv) {
  const std::string phase = argc > 1 ? argv[1] : "";
  if (phase != "device" && phase != "kernels" && phase != "kernels-small" && phase != "bench") {
    std::fprintf(stderr, "gpu_check: unknown phase '%s'\n", phase.c_str());
    return 2;
  }
  try {
    return modalkv::run(phase, argc > 2 ? argv[2] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_check: %s\n", error.what());
    return 1;
  }
}
