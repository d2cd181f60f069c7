// What make_verifier() chooses from: one maker per verifier, beside its code.
#pragma once

#include <memory>

#include "host/verify/verify.h"

namespace dapo::verify {

std::unique_ptr<Verifier> make_math_dapo(const VerifierOptions& options);
std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options);
std::unique_ptr<Verifier> make_boxed(const VerifierOptions& options);
std::unique_ptr<Verifier> make_countdown(const VerifierOptions& options);
std::unique_ptr<Verifier> make_exact(const VerifierOptions& options);

}  // namespace dapo::verify
