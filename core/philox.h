// Philox4x32-10 (Salmon et al., SC'11): a counter-based generator. A draw is a pure function of its key and counter, so
// it does not depend on batch, schedule, rank or device.
#pragma once

#include "core/dtype.h"

namespace dapo {

struct Philox4 {
  uint32_t x[4];
};

DAPO_HD Philox4 philox(uint64_t key, Philox4 counter) {
  uint32_t k0 = key, k1 = key >> 32;
  Philox4 c = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c.x[0], p1 = uint64_t{0xCD9E8D57u} * c.x[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.x[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.x[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// Uniform in [0, 1), 24 bits.
DAPO_HD float uniform(uint32_t x) {
  return static_cast<float>(x >> 8) * 0x1p-24f;
}

/// With the run's seed and the token's position in its sequence, all that a sampled token's draw depends on.
struct DrawKey {
  int32_t step;
  int32_t prompt;
  int32_t sample;
};

/// The uniform number that draws the token at `position`.
DAPO_HD float draw(uint64_t seed, DrawKey k, int32_t position) {
  const Philox4 c{{static_cast<uint32_t>(position), static_cast<uint32_t>(k.sample), static_cast<uint32_t>(k.prompt),
                   static_cast<uint32_t>(k.step)}};
  return uniform(philox(seed, c).x[0]);
}

}  // namespace dapo
