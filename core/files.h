// Files as users have them: "~" stands for the home folder, links are followed, and the message about a file that
// cannot be read says what kind of file it is.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace dapo {

/// "~" and "~/x" start in $HOME, "~name/x" in that user's home, as in a shell; other paths stay as they are.
std::string expand_home(const std::string& path);

/// What a file is by its first bytes, and how to repair it, as a clause for an error message: "a Git LFS pointer,
/// ..."; empty for plain text and everything unknown. No text file starts like one of these.
std::string_view foreign_format(std::string_view head);

/// Error (exit 2) if `path` is not a regular file or has a foreign format: for readers with poorer messages.
void check_format(const std::string& path);

/// "a folder", "a fifo", ...: a file of this st_mode; "" for a regular file.
std::string_view special_file(mode_t mode);

/// Whether something has that name, a dangling link included: half a download is not the same as none.
bool has_entry(const std::string& path);

/// Why opening `path` failed with `error` (errno): "No such file or directory", or where a broken link leads to.
std::string open_error(const std::string& path, int error);

/// A descriptor for reading a regular file, links followed; `size` is its length. Error (exit 2): what it is instead.
int open_regular(const std::string& path, uint64_t& size);

}  // namespace dapo
