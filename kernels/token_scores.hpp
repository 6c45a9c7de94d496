// How much probe queries attend to each token: what decides which visual tokens stay in high
// precision. Two passes, since a probability needs the sum over everything that its row sees, which
// may lie in several lists: attend() over each list and merge_partials() give every row's maximum
// and sum; then each list's tokens get their share of each row.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.hpp"

namespace modalkv {

/// Adds to `scores`, one a token of `list`, the mean attention probability over the probe rows
/// [tokens, heads] that see the token: rows whose position or window excludes it count neither in
/// the sum nor in the number, so that early tokens, which more rows of a causal chunk see, are not
/// favoured (ZipCache, He et al. 2024). Hidden tokens, and those that no row sees, get
/// nothing added.
///
/// `partials`: of the same rows over all that they see, in this list and elsewhere, merged; only
/// each row's maximum and sum are read. Pages' trailers must count the list's tokens. `scratch`
/// holds the keys of a page (score_scratch_bytes of modalkv/op.hpp, as floats).
///
/// Against double precision over the decoded keys, with the same maximum and sum: relative error of
/// a row's share below 2e-6 (1 + the sum of the magnitudes of its logit's terms). Allocates
/// nothing; different lists may be worked on by different threads, each with scratch of its own.
void add_token_scores(const Queries& probes, const PageList& list, std::span<const float> partials,
                      std::span<float> scratch, std::span<float> scores);

}  // namespace modalkv
