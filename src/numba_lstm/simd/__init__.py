"""What speaks LLVM: a vector register, a tile of them, and what the CPU offers."""
