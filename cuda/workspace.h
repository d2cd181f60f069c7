// Scratch that each family of ops takes from the workspace, bytes: pure functions of the largest calls.
#pragma once

#include "core/backend.h"

namespace dapo::cuda {

size_t rmsnorm_workspace(const WorkspaceNeeds& needs);
size_t squares_workspace();
size_t matmul_workspace(const WorkspaceNeeds& needs);
size_t attention_workspace(const WorkspaceNeeds& needs, DType t);
size_t head_workspace(const WorkspaceNeeds& needs, DType t);

}  // namespace dapo::cuda
