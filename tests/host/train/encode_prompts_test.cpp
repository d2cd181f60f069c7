// Which prompts of a dataset are kept, dropped, or an error.
#include "host/train/encode_prompts.h"

#include "tests/host/train/toy_run.h"

namespace dapo {
namespace {

EncodedPrompts encode(const DataSection& section, const Dataset& data, size_t most = 100) {
  return encode_prompts(section, PromptEncoder(section, temp_folder(), byte_tokenizer()), data, "training", most);
}

TEST(EncodePrompts, DropsWhatIsTooLongAndKeepsThePlaces) {
  const Dataset data = dataset_of(
      "{\"prompt\":\"abcd\",\"answer\":\"1\"}\n{\"prompt\":\"ab\",\"answer\":\"2\"}\n"
      "{\"prompt\":\"abc\",\"answer\":\"3\"}\n{\"prompt\":\"abcde\",\"answer\":\"4\"}\n");
  DataSection section = toy_config().data;
  section.max_prompt_length = 3;
  EncodedPrompts prompts = encode(section, data);
  EXPECT_EQ(prompts.examples, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(prompts.ids[1], (std::vector<int32_t>{'a', 'b', 'c'}));
  EXPECT_EQ(prompts.dropped, 2u);
  prompts = encode(section, data, 1);  // stops there: what follows is neither kept nor counted
  EXPECT_EQ(prompts.examples, std::vector<int32_t>{1});
  EXPECT_EQ(prompts.dropped, 1u);

  section.max_prompt_length = 1;
  EXPECT_EQ(error_of(kExitUsage, [&] { encode(section, data); }),
            "no training prompt is left: 4 rows, 4 empty or longer than data.max_prompt_length = 1");
  section.overlong_prompts = OverlongPrompts::error;
  const std::string said = error_of(kExitUsage, [&] { encode(section, data); });
  EXPECT_NE(said.find("training row 0-"), std::string::npos) << said;
  EXPECT_NE(said.find("4 tokens; 1 to data.max_prompt_length = 1 are allowed"), std::string::npos) << said;
}

}  // namespace
}  // namespace dapo
