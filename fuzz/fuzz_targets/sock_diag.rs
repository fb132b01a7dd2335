#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tcptrace::fuzzing::sock_diag(data));
