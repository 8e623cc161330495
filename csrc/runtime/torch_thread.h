// The one thread of the process that runs torch. Profiling records only ops of the thread that started it, so every
// engine and recorder call comes from there.
#pragma once

#include <cstdint>

namespace omni {

// Makes the calling thread the torch thread and gives its ops that many threads (0: torch's default). Throws
// WRONG_THREAD if another one already is the torch thread.
void init_torch_thread(int64_t threads);

// How many threads the ops of the torch thread use, 0 before init_torch_thread. Any thread.
int64_t torch_thread_count();

// Throws WRONG_THREAD unless the calling thread is the torch thread; FAILED_PRECONDITION if there is none yet.
void require_torch_thread();

}  // namespace omni
