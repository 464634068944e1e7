package ebpf

// The objects and bindings are committed, so that nobody needs clang to build Sluice. clang 14 writes the same bytes on
// every machine: TestGenerated compares where it is.
//go:generate go tool bpf2go -cc clang -target bpfel,bpfeb -type direction verdict sockmap.c -- -O2 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
