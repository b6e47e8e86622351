//! The driver holds a server by its standard input: when that ends, the server exits as a program would.

use std::io::Read;

/// Ends this process, with its exit handlers, when standard input reaches its end.
pub fn exit_with_stdin() {
    std::thread::spawn(|| {
        let mut word = [0_u8; 64];
        while matches!(std::io::stdin().read(&mut word), Ok(count) if count > 0) {}
        std::process::exit(0);
    });
}
