// Scratch that the families of ops take from Backend::workspace().
#pragma once

#include "core/backend.h"

namespace dapo::cpu {

/// The most scratch, in bytes, that one call of the family takes under `needs` (calls release it, so the workspace has
/// to hold only the largest of these). Arena pieces are rounded up to Arena::kAlign: measure with a measuring arena.
size_t attention_workspace_bytes(const WorkspaceNeeds& needs, DType dtype);  ///< attention.cpp
size_t head_workspace_bytes(const WorkspaceNeeds& needs, DType dtype);       ///< head.cpp
size_t rmsnorm_workspace_bytes(const WorkspaceNeeds& needs);                 ///< rmsnorm.cpp

}  // namespace dapo::cpu
