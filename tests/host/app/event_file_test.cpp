// TensorBoard's event files, read back by the tests' own reader, and by TensorBoard where it is installed
// ($DAPO_TEST_PYTHON).
#include "host/app/event_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/host/app/event_reader.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

TEST(EventFile, ChecksumOfThePublishedVectors) {
  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(EventFile, ScalarsAreReadBack) {
  const ScratchFolder scratch;
  EventFile file(scratch.path(), 1700000000.25, 0);
  EXPECT_TRUE(file.scalars(3, 1700000001.5, {{"reward/acc", 0.25}, {"seconds", 1e9}, {"eval/avg", std::nan("")}}));
  EXPECT_TRUE(file.scalars(4, 1700000002.5, {{"eval/avg", std::nan("")}}));  // no number: no event
  EXPECT_TRUE(file.scalars(int64_t{1} << 40, 1700000003.5, {{std::string(300, 'n'), -0.5}}));
  const std::vector<Event> events = events_of(file.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_EQ(events[0].time, 1700000000.25);
  EXPECT_TRUE(events[1].start);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[2].step, 3);
  EXPECT_EQ(events[2].time, 1700000001.5);
  EXPECT_EQ(events[2].values, (std::map<std::string, float>{{"reward/acc", 0.25f}, {"seconds", 1e9f}}));
  EXPECT_EQ(events[3].step, int64_t{1} << 40);
  EXPECT_EQ(events[3].values, (std::map<std::string, float>{{std::string(300, 'n'), -0.5f}}));
}

TEST(EventFile, ALaterFileSortsLastAndBeginsWhereItResumes) {
  const ScratchFolder scratch;
  std::vector<std::string> names;
  for (const double time : {1700000000.0, 1700000000.0, 1600000000.0}) {  // in the same second; a clock set back
    EventFile file(scratch.path(), time, 11);
    names.push_back(file.path());
    EXPECT_EQ(events_of(file.path()).at(1).step, 11);
    EXPECT_TRUE(events_of(file.path()).at(1).start);
  }
  EXPECT_LT(names[0], names[1]);
  EXPECT_LT(names[1], names[2]);
  const std::string foreign = scratch.write("notes", "mine");
  EventFile::remove_all(scratch.path());
  EXPECT_FALSE(fs::exists(names[0]) || fs::exists(names[2]));
  EXPECT_TRUE(fs::exists(foreign));
}

// The file of a run that is resumed from step 2 after it had done step 3: TensorBoard shows step 3 once.
TEST(EventFile, TensorBoardReadsIt) {
  const char* python = std::getenv("DAPO_TEST_PYTHON");
  const std::string program = python != nullptr ? python : "python3";
  if (std::system((program + " -c 'import tensorboard' >/dev/null 2>&1").c_str()) != 0)
    GTEST_SKIP() << "skipped: " << program << " has no tensorboard package (DAPO_TEST_PYTHON)";
  const ScratchFolder scratch;
  {
    fs::create_directory(scratch.path("logs"));
    EventFile file(scratch.path("logs"), 1700000000, 0);
    for (int step = 1; step <= 3; ++step) file.scalars(step, 1700000000 + step, {{"reward/acc", 0.125 * step}});
  }
  {
    EventFile file(scratch.path("logs"), 1700000010, 3);
    for (int step = 3; step <= 4; ++step)
      file.scalars(step, 1700000010 + step, {{"reward/acc", -0.125 * step}, {"eval/avg", 0.5}});
  }
  const std::string script =
      scratch.write("read.py",
                    "import sys\n"
                    "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
                    "a = EventAccumulator(sys.argv[1])\na.Reload()\n"
                    "for tag in sorted(a.Tags()['scalars']):\n"
                    "    print(tag, *(f'{e.step}:{e.value}' for e in a.Scalars(tag)))\n");
  const std::string out = scratch.path("out");
  ASSERT_EQ(
      std::system((program + " " + script + " " + scratch.path("logs") + " >" + out + " 2>" + out + ".err").c_str()), 0)
      << slurp(out + ".err");
  EXPECT_EQ(slurp(out), "eval/avg 3:0.5 4:0.5\nreward/acc 1:0.125 2:0.25 3:-0.375 4:-0.5\n");
}

}  // namespace
}  // namespace dapo
