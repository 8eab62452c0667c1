#pragma once

namespace dspark {

/// Names the calling thread for `top -H`, debuggers and /proc; at most 15 characters count. Does nothing
/// where the system has no such names.
void name_this_thread(const char* name);

}  // namespace dspark
