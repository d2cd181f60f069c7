// The makers that make_verifier() chooses from; each is defined with its verifier.
#pragma once

#include <memory>

#include "host/verify/verify.h"

namespace dapo::verify {

std::unique_ptr<Verifier> make_math_dapo(const VerifierOptions& options);
std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options);
std::unique_ptr<Verifier> make_boxed(const VerifierOptions& options);
std::unique_ptr<Verifier> make_math(const VerifierOptions& options);
std::unique_ptr<Verifier> make_countdown(const VerifierOptions& options);
std::unique_ptr<Verifier> make_exact(const VerifierOptions& options);
std::unique_ptr<Verifier> make_format(const VerifierOptions& options);
std::unique_ptr<Verifier> make_command(const VerifierOptions& options);

}  // namespace dapo::verify
