// Threads for one operator call.
#pragma once

namespace roi {

// Runs work(context) on up to `threads` threads at once, the caller's among them, and returns when all have
// returned. How many really run is not promised: work must share itself out, e.g. by an atomic counter.
void run_parallel(int threads, void (*work)(void*), void* context);

}  // namespace roi
