// Scratch that the op families of the CPU backend take from Backend::workspace(), each declared beside its use.
#pragma once

#include "core/backend.h"

namespace dapo::cpu {

/// Largest scratch, in bytes, that any one call of the family takes under `needs` (calls give it back, so the workspace
/// is as large as the largest of these). Arena pieces are rounded up to Arena::kAlign: measure with a measuring arena.
size_t attention_workspace_bytes(const WorkspaceNeeds& needs, DType dtype);  ///< attention.cpp
size_t head_workspace_bytes(const WorkspaceNeeds& needs, DType dtype);       ///< head.cpp
size_t rmsnorm_workspace_bytes(const WorkspaceNeeds& needs);                 ///< rmsnorm.cpp

}  // namespace dapo::cpu
