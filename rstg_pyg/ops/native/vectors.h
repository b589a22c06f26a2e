// Vectors of the processor's width, on the vector types that GCC and Clang share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#define INLINE inline __attribute__((always_inline))

// Loops over the few vectors of a strip, or over heads, must vanish for their arrays to be registers.
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

template <class T, int Bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Bytes)));
};

template <class T>
using Vec = typename VectorOf<T, kVectorBytes>::type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
INLINE Vec<T> load(const T* from) {
    Vec<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class T>
INLINE void store(T* to, Vec<T> v) {
    std::memcpy(to, &v, sizeof v);
}

// bfloat16 is the upper half of float; it is rounded to the nearest, ties to even.
typedef VectorOf<uint32_t, kVectorBytes>::type Words;
typedef VectorOf<uint16_t, kVectorBytes / 2>::type Halves;

// GCC 12 converts AVX-512 vectors in parts, unless told how.
INLINE Words widened(Halves halves) {
#ifdef __AVX512F__
    return (Words)_mm512_cvtepu16_epi32((__m256i)halves);
#else
    return __builtin_convertvector(halves, Words);
#endif
}

INLINE Halves narrowed(Words words) {
#ifdef __AVX512F__
    return (Halves)_mm512_cvtepi32_epi16((__m512i)words);
#else
    return __builtin_convertvector(words, Halves);
#endif
}

INLINE Vec<float> load_bfloat16(const uint16_t* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Words words = widened(halves) << 16;
    Vec<float> v;
    std::memcpy(&v, &words, sizeof v);
    return v;
}

INLINE void store_bfloat16(uint16_t* to, Vec<float> v) {
    Words words;
    std::memcpy(&words, &v, sizeof words);
    words = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
    words = v != v ? Words{} + 0x7fc0 : words;
    const Halves halves = narrowed(words);
    std::memcpy(to, &halves, sizeof halves);
}

template <class T, int V>
INLINE void load_vectors(Vec<T> (&to)[V], const T* from) {
    UNROLL for (int c = 0; c < V; c++) to[c] = load(from + c * kLanes<T>);
}

template <class T, int V>
INLINE void add_to(T* to, const Vec<T> (&values)[V]) {
    UNROLL for (int c = 0; c < V; c++) store(to + c * kLanes<T>, load(to + c * kLanes<T>) + values[c]);
}

template <class T>
INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

// NaN stays NaN, as in torch.
template <class T>
INLINE Vec<T> relu(Vec<T> x) {
    const Vec<T> zero = {};
    return zero > x ? zero : x;
}

// The gradient of relu, which lets it pass where the result is NaN.
template <class T>
INLINE Vec<T> where_active(Vec<T> rectified, Vec<T> gradient) {
    const Vec<T> zero = {};
    return rectified <= zero ? zero : gradient;
}

#if defined(__clang__) || __GNUC__ >= 12
template <class T, int Bytes, int... I>
INLINE T sum_halves(typename VectorOf<T, Bytes>::type v, std::integer_sequence<int, I...>) {
    constexpr int half = sizeof...(I);
    const auto folded = __builtin_shufflevector(v, v, I...) + __builtin_shufflevector(v, v, (I + half)...);
    if constexpr (half == 2)
        return folded[0] + folded[1];
    else
        return sum_halves<T, Bytes / 2>(folded, std::make_integer_sequence<int, half / 2>());
}

template <class T>
INLINE T sum(Vec<T> v) {
    if constexpr (kLanes<T> == 2)
        return v[0] + v[1];
    else
        return sum_halves<T, kVectorBytes>(v, std::make_integer_sequence<int, kLanes<T> / 2>());
}

// In each 16 bytes the sums of neighbours, those of a first.
template <class T, int... I>
INLINE Vec<T> sum_neighbours(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    constexpr int n = kLanes<T>, group = 16 / int(sizeof(T)), half = group / 2;
    // Lane i takes the pair at `from` of a, or of b in the upper half of its group.
#define FROM(i) ((i) / group * group + (i) % half * 2 + ((i) % group < half ? 0 : n))
    return __builtin_shufflevector(a, b, FROM(I)...) + __builtin_shufflevector(a, b, (FROM(I) + 1)...);
#undef FROM
}

template <class T, int Bytes, int... I>
INLINE typename VectorOf<T, 16>::type fold(typename VectorOf<T, Bytes>::type v, std::integer_sequence<int, I...>) {
    if constexpr (Bytes == 16) {
        return v;
    } else {
        constexpr int half = sizeof...(I);
        const auto folded = __builtin_shufflevector(v, v, I...) + __builtin_shufflevector(v, v, (I + half)...);
        return fold<T, Bytes / 2>(folded, std::make_integer_sequence<int, half / 2>());
    }
}

// The sums of several vectors: where they fill 16 bytes, in fewer steps than one by one.
template <class T, int O>
INLINE void sum_each(const Vec<T> (&v)[O], T (&to)[O]) {
    if constexpr (O * sizeof(T) == 16) {
        constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>();
        Vec<T> found = sum_neighbours<T>(v[0], v[1], lanes);
        if constexpr (O == 4) found = sum_neighbours<T>(found, sum_neighbours<T>(v[2], v[3], lanes), lanes);
        const auto folded = fold<T, kVectorBytes>(found, std::make_integer_sequence<int, kLanes<T> / 2>());
        std::memcpy(to, &folded, sizeof folded);
    } else {
        UNROLL for (int o = 0; o < O; o++) to[o] = sum<T>(v[o]);
    }
}
#else
template <class T>
INLINE T sum(Vec<T> v) {
    T lanes[kLanes<T>];
    std::memcpy(lanes, &v, sizeof v);
    for (int n = kLanes<T> / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
    return lanes[0];
}

template <class T, int O>
INLINE void sum_each(const Vec<T> (&v)[O], T (&to)[O]) {
    UNROLL for (int o = 0; o < O; o++) to[o] = sum<T>(v[o]);
}
#endif

// e^x for x from -87 to 87 or NaN: x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r to the power where
// the next term is below float's precision.
INLINE Vec<float> exp_within(Vec<float> x) {
    typedef VectorOf<int32_t, kVectorBytes>::type Ints;
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which stands in the low bits
    const Vec<float> shifted = x * 1.44269504f + round;
    const Vec<float> n = shifted - round;
    const Vec<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    Vec<float> y = r * (1.0f / 5040) + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    Ints bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    Vec<float> scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

// e^x for x <= 0 or NaN. Results under 2^-126 are flushed to zero.
INLINE Vec<float> exp_of_negative(Vec<float> x) {
    const Vec<float> zero = {};
    return x < -87.0f ? zero : exp_within(x);
}

// Replaces x[0..count) by their exponentials; all of them <= 0 or NaN.
INLINE void exp_of_negatives(float* x, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes<float> <= count; i += kLanes<float>) store(x + i, exp_of_negative(load(x + i)));
    if (i < count) {
        float rest[kLanes<float>] = {};
        std::memcpy(rest, x + i, sizeof(float) * (count - i));
        store(rest, exp_of_negative(load(rest)));
        std::memcpy(x + i, rest, sizeof(float) * (count - i));
    }
}

INLINE void exp_of_negatives(double* x, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = std::exp(x[i]);
}
