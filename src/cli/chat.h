#pragma once
// The interactive conversation of `dspark run`.

#include "cli/session.h"

namespace dspark::cli {

/// Reads messages from the terminal and answers them until /quit, Ctrl-D or a second Ctrl-C.
/// returns: the exit status.
int run_chat(Session& session);

}  // namespace dspark::cli
