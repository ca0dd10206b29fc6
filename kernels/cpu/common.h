// What every kernel here shares: one vector type, as wide as the machine's registers. GCC and Clang turn arithmetic
// on it into AVX-512, AVX2 or NEON, so the loops are written once.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

constexpr int LANES = VECTOR_BYTES / 4;
typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));

// memcpy, because the data is aligned to its elements only; it compiles to one unaligned load or store.
static inline vf load(const float *p) { vf v; std::memcpy(&v, p, sizeof v); return v; }
static inline void store(float *p, vf v) { std::memcpy(p, &v, sizeof v); }

#define EXPORT extern "C" __attribute__((visibility("default")))
