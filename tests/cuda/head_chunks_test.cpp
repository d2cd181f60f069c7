// How the head is cut into chunks of rows.
#include "cuda/head_chunks.h"

#include <gtest/gtest.h>

#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

TEST(HeadChunks, HaveOneSizeAndFitTheWorkspace) {
  EXPECT_EQ(head_chunk_rows(16384, 151936, kTrainedLogits), 4096);  // Qwen2.5: four chunks of the same size
  EXPECT_EQ(head_chunk_rows(4353, 151936, kTrainedLogits), 2304);
  EXPECT_EQ(head_chunk_rows(4352, 151936, kTrainedLogits), 4352);
  EXPECT_EQ(head_chunk_rows(1, 151936, kTrainedLogits), 1);
  EXPECT_EQ(head_chunk_rows(1000, int64_t{1} << 22, kScoredLogits), 128);  // not fewer, even for the widest rows
  for (const int64_t vocab : {2, 100, 32000, 151936, 262144})
    for (const int64_t most : {1, 130, 4353, 20000}) {
      WorkspaceNeeds needs{};
      needs.vocab = vocab, needs.hidden = 64, needs.max_tokens = needs.max_head_rows = most, needs.max_batch = 1;
      const size_t held = head_workspace(needs, DType::bf16);
      for (const int64_t rows : {int64_t{1}, most / 2 + 1, most - most / 3, most})
        for (const int64_t bytes : {kTrainedLogits, kScoredLogits}) {
          const int64_t chunk = head_chunk_rows(rows, vocab, bytes);
          EXPECT_LE(chunk, rows);
          EXPECT_LE((chunk * vocab) * sizeof(float), held) << rows << " of " << most;
          EXPECT_TRUE(chunk <= 128 || chunk * vocab * int64_t{sizeof(float)} <= bytes);
        }
    }
}

}  // namespace
}  // namespace dapo::cuda
