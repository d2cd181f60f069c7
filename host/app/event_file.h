// TensorBoard's event file: scalars by step, readable by `tensorboard --logdir`.
//
// Format: TFRecord (tensorflow/core/lib/io/record_writer.h: length, masked CRC-32C of it, data, masked CRC-32C of that)
// around a protocol buffer Event (tensorflow/core/util/event.proto) with one Summary of simple values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host/app/streams.h"

namespace dapo {

/// CRC-32C (Castagnoli: polynomial 0x1EDC6F41, reflected), as iSCSI and TFRecord use it.
uint32_t crc32c(std::string_view bytes);

class EventFile {
 public:
  EventFile() = default;
  /// FOLDER/events.out.tfevents.<time>.<host>, a new file whose name sorts after those of the folder's other event
  /// files, which is the order in which TensorBoard joins them. `time`: seconds since 1970. `first_step`: the first that
  /// this file may hold; TensorBoard then drops that step and later ones of the older files (a resumed run computes them
  /// again). Error (exit 3) if the file cannot be created.
  EventFile(const std::string& folder, double time, int64_t first_step);
  /// Removes the event files in a folder.
  static void remove_all(const std::string& folder);

  /// One event with these values (names as tags; values that are not finite are left out). False if the disk refuses
  /// it (see errno); it is then written with the next one.
  bool scalars(int64_t step, double time, const std::vector<std::pair<std::string, double>>& values);
  const std::string& path() const { return file_.path(); }
  bool complete() { return file_.complete(); }

 private:
  AppendFile file_;
};

}  // namespace dapo
