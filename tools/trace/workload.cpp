#include "tools/trace/workload.hpp"

#include <algorithm>
#include <cmath>

namespace modalkv {
namespace {

// Read off alibaba/ServeGen's mm-image sample (Apache-2.0), one hour, 34,846 requests of 35
// clients.
constexpr QuantilePoint kServegenText[]{
    {0, 31},    {0.01, 36},  {0.05, 41},  {0.1, 74},    {0.3, 79},    {0.5, 94},     {0.6, 164},
    {0.7, 389}, {0.8, 1017}, {0.9, 1639}, {0.95, 2201}, {0.99, 2974}, {0.999, 3369}, {1, 4242}};
constexpr QuantilePoint kServegenImages[]{{0.796, 1}, {0.863, 2}, {0.958, 3},  {0.975, 4},
                                          {0.983, 5}, {0.988, 6}, {0.996, 10}, {1, 20}};
constexpr QuantilePoint kServegenImageTokens[]{{0, 4},      {0.1, 6},     {0.2, 111}, {0.3, 216},
                                               {0.4, 252},  {0.5, 360},   {0.6, 468}, {0.7, 738},
                                               {0.8, 1196}, {0.95, 1242}, {1, 1280}};
constexpr QuantilePoint kServegenOutput[]{
    {0, 2},     {0.05, 6},  {0.1, 7},   {0.2, 26},  {0.3, 68},   {0.4, 93},   {0.5, 120},
    {0.6, 149}, {0.7, 175}, {0.8, 205}, {0.9, 258}, {0.95, 324}, {0.99, 532}, {1, 2000}};

// Digitised from the published plots of Azure's LMM inference trace 2025 (CC-BY 4.0). The trace
// gives context tokens of text and images together; what its images take is not known, so the text
// table is that of its text requests.
constexpr QuantilePoint kAzureText[]{{0, 40},      {0.01, 69},   {0.05, 137},   {0.1, 171},
                                     {0.2, 305},   {0.3, 439},   {0.4, 598},    {0.5, 779},
                                     {0.6, 993},   {0.7, 1267},  {0.8, 1745},   {0.9, 3066},
                                     {0.95, 4132}, {0.98, 7179}, {0.99, 10924}, {1, 21671}};
constexpr QuantilePoint kAzureImages[]{{0.662, 1},  {0.71, 2},   {0.857, 3},  {0.877, 4},
                                       {0.926, 5},  {0.935, 7},  {0.947, 10}, {0.956, 14},
                                       {0.969, 20}, {0.986, 22}, {1, 23}};
constexpr QuantilePoint kAzureImageTokens[]{{0, 576}, {1, 576}};
constexpr QuantilePoint kAzureOutput[]{{0, 1},     {0.05, 9},   {0.1, 14},   {0.2, 28},  {0.3, 40},
                                       {0.4, 56},  {0.5, 80},   {0.6, 104},  {0.7, 143}, {0.8, 258},
                                       {0.9, 401}, {0.95, 508}, {0.99, 740}, {1, 918}};

constexpr QuantilePoint kChatText[]{{0, 20}, {0.25, 60}, {0.5, 130}, {0.75, 300}, {1, 700}};
constexpr QuantilePoint kChatImages[]{{0.5, 1}, {0.75, 2}, {0.9, 3}, {1, 4}};
constexpr QuantilePoint kChatImageTokens[]{{0, 576}, {1, 576}};
constexpr QuantilePoint kChatOutput[]{{0, 50}, {0.5, 150}, {0.9, 300}, {1, 400}};

const Workload kWorkloads[]{
    {"chat", "chats about one to four photos of 576 tokens each", "made up for a first look", 0.85,
     kChatText, kChatImages, kChatImageTokens, kChatOutput},
    {"servegen", "image requests of a production service", "quantiles of alibaba/ServeGen mm-image",
     0.988, kServegenText, kServegenImages, kServegenImageTokens, kServegenOutput},
    {"azure-lmm", "multimodal requests of a cloud, 576 tokens assumed for an image",
     "plots of Azure LMM inference trace 2025; the share of image requests is a guess", 0.5,
     kAzureText, kAzureImages, kAzureImageTokens, kAzureOutput},
};

}  // namespace

double draw(std::span<const QuantilePoint> table, Random& random) {
  const double share = random.unit();
  const auto above = std::find_if(table.begin(), table.end(),
                                  [&](const QuantilePoint& point) { return point.share > share; });
  if (above == table.end()) return table.back().value;
  if (above == table.begin()) return above->value;
  const QuantilePoint& below = *(above - 1);
  const double position = (share - below.share) / (above->share - below.share);
  return below.value * std::pow(above->value / below.value, position);
}

std::span<const Workload> workloads() {
  return kWorkloads;
}

}  // namespace modalkv
