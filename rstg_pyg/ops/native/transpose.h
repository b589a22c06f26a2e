// A matrix's transpose, in tiles of as many rows and columns as a vector has lanes.
#pragma once

#include "teams.h"

// Field by field what linear.py packs: 64 bits each.
struct TransposeArguments {
    int64_t threads, num_rows, num_columns;
    const void* from;
    void* to;
};

#if defined(__clang__) || __GNUC__ >= 12
// Exchanges blocks of Step x Step off the diagonal of every block twice as large.
template <class T, int Step, int... I>
INLINE void exchange(Vec<T> (&rows)[kLanes<T>], std::integer_sequence<int, I...> lanes) {
    constexpr int count = sizeof...(I);
    UNROLL for (int r = 0; r < count; r++) {
        if (r & Step) continue;
        const Vec<T> upper = rows[r], lower = rows[r + Step];
        rows[r] = __builtin_shufflevector(upper, lower, (I & Step ? count + I - Step : I)...);
        rows[r + Step] = __builtin_shufflevector(upper, lower, (I & Step ? count + I : I + Step)...);
    }
    if constexpr (2 * Step < count) exchange<T, 2 * Step>(rows, lanes);
}

template <class T>
INLINE void transpose_tile(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
    constexpr int lanes = kLanes<T>;
    Vec<T> rows[lanes];
    UNROLL for (int r = 0; r < lanes; r++) rows[r] = load(from + r * from_stride);
    exchange<T, 1>(rows, std::make_integer_sequence<int, lanes>());
    UNROLL for (int r = 0; r < lanes; r++) store(to + r * to_stride, rows[r]);
}
#else
template <class T>
INLINE void transpose_tile(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
    for (int c = 0; c < kLanes<T>; c++)
        for (int r = 0; r < kLanes<T>; r++) to[c * to_stride + r] = from[r * from_stride + c];
}
#endif

template <class T>
void transpose_columns(const TransposeArguments& a, int64_t first, int64_t end) {
    constexpr int lanes = kLanes<T>;
    const T* const from = static_cast<const T*>(a.from);
    T* const to = static_cast<T*>(a.to);
    for (int64_t c = first; c < end; c += lanes) {
        int64_t r = 0;
        if (c + lanes <= end)
            for (; r + lanes <= a.num_rows; r += lanes)
                transpose_tile(from + r * a.num_columns + c, a.num_columns, to + c * a.num_rows + r, a.num_rows);
        for (; r < a.num_rows; r++)
            for (int64_t rest = c; rest < end && rest < c + lanes; rest++)
                to[rest * a.num_rows + r] = from[r * a.num_columns + rest];
    }
}

template <class T>
void transpose(const TransposeArguments& a) {
    const int64_t strips = (a.num_columns + kLanes<T> - 1) / kLanes<T>;
    const int64_t threads = count_threads(a.threads < strips ? a.threads : strips, double(a.num_rows * a.num_columns));
    const auto columns = [&](int64_t part) {
        const int64_t first = strips * part / threads * kLanes<T>, end = strips * (part + 1) / threads * kLanes<T>;
        transpose_columns<T>(a, first, end < a.num_columns ? end : a.num_columns);
    };
    if (threads <= 1) {
        columns(0);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t part = 0; part < threads; part++) columns(part);
#endif
}
