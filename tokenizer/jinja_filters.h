// The two halves of the filters: of single values (jinja_filters.cpp) and of lists (jinja_filters_list.cpp).
#pragma once

#include <utility>
#include <vector>

#include "tokenizer/jinja_render.h"

namespace dapo::jinja {

/// Name and operation of every filter of lists.
std::vector<std::pair<std::string_view, Operation>> list_filters();

}  // namespace dapo::jinja
