//! A program that computes all the time, until its standard input ends: bad company for those that are measured.

use std::hint::black_box;

use convoy_bench::leash;

fn main() {
    leash::exit_with_stdin();
    let mut word = 1_u64;
    loop {
        word = black_box(word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
    }
}
