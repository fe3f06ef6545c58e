//! The `spanreel` binary: one allocator for Rust and RocksDB, then the command line.

use std::io::Write;

// Unprefixed symbols, so that RocksDB's C++ shares this heap and the memory budget sees both.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let code = spanreel::cli::main();
    // Nobody is left to be told.
    let _ = std::io::stdout().flush();
    // Not `exit`: it would destroy RocksDB's globals under the threads that were not waited for.
    signal_hook::low_level::exit(code.into());
}
