// The gradient of a weight: a product of two matrices over their many rows, and the sums of the first one's columns.
#pragma once

#include <vector>

#include "cells.h"

// Field by field what linear.py packs: 64 bits each. M rows, O outputs, C channels.
struct WeightArguments {
    int64_t threads, num_rows, outputs, channels;
    const void* grad;      // [M, O], its rows `grad_row` apart
    int64_t grad_row;
    const void* rows;      // [M, C], `row` apart
    int64_t row;
    void *weight, *bias;   // [O, C], [O]
};

template <class T>
class WeightGradient {
   public:
    explicit WeightGradient(const WeightArguments& a)
        : a_(a),
          threads_(count_threads(a.threads, double(a.num_rows) * a.outputs * a.channels)),
          width_((a.channels + kLane - 1) / kLane * kLane),
          room_(threads_ * (Arena::bytes<T>(a.outputs * width_) + Arena::bytes<T>(a.outputs) + Arena::bytes<T>(kTile))) {
    }

    void run() {
        std::vector<Part> parts;
        for (int part = 0; part < threads_; part++)
            parts.push_back({room_.take<T>(a_.outputs * width_), room_.take<T>(a_.outputs), room_.take<T>(kTile)});
        const auto add = [&](int64_t part) {
            std::memset(parts[part].weight, 0, a_.outputs * width_ * sizeof(T));
            std::memset(parts[part].bias, 0, a_.outputs * sizeof(T));
            const int64_t end = a_.num_rows * (part + 1) / threads_;
            for (int64_t m = a_.num_rows * part / threads_; m < end; m += kRows)
                add_rows(parts[part], m, m + kRows < end ? kRows : end - m);
        };
        if (threads_ <= 1) {
            add(0);
        } else {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
            for (int64_t part = 0; part < threads_; part++) add(part);
#endif
        }
        T *const weight = static_cast<T*>(a_.weight), *const bias = static_cast<T*>(a_.bias);
        for (int64_t o = 0; o < a_.outputs; o++) {
            for (int part = 1; part < threads_; part++) {
                for (int64_t c = 0; c < a_.channels; c++)
                    parts[0].weight[o * width_ + c] += parts[part].weight[o * width_ + c];
                parts[0].bias[o] += parts[part].bias[o];
            }
            std::memcpy(weight + o * a_.channels, parts[0].weight + o * width_, a_.channels * sizeof(T));
            bias[o] = parts[0].bias[o];
        }
    }

   private:
    static constexpr int kLane = kLanes<T>;
    // Rows that the first-level cache holds, in strips of up to four vectors.
    static constexpr int64_t kRows = 64, kTile = kRows * 4 * kLane;

    struct Part {
        T *weight, *bias, *tile;
    };

    void add_rows(const Part& part, int64_t first, int64_t count) const {
        const T* const grad = static_cast<const T*>(a_.grad) + first * a_.grad_row;
        for_rows<4 * kLane>(0, a_.outputs, [&](int64_t o, auto outputs) {
            T total[outputs] = {};
            for (int64_t m = 0; m < count; m++)
                for (int i = 0; i < outputs; i++) total[i] += grad[m * a_.grad_row + o + i];
            for (int i = 0; i < outputs; i++) part.bias[o + i] += total[i];
        });
        for (int64_t c = 0; c < width_;) {
            const int64_t width = width_ - c >= 4 * kLane ? 4 * kLane : kLane;
            const T* rows = static_cast<const T*>(a_.rows) + first * a_.row + c;
            // Rows that lie apart, or that end within a vector.
            if (a_.row != width || a_.channels - c < width) {
                const int64_t valid = a_.channels - c < width ? a_.channels - c : width;
                for (int64_t m = 0; m < count; m++)
                    load_elements(part.tile + m * width, reinterpret_cast<const char*>(rows), m * a_.row, valid, width,
                                  kNative<T>);
                rows = part.tile;
            }
            for_rows<kCellRows>(0, a_.outputs, [&](int64_t o, auto outputs) {
                T* const to = part.weight + o * width_ + c;
                if (width == kLane)
                    add_products<outputs, 1>(grad + o, rows, count, to);
                else
                    add_products<outputs, 4>(grad + o, rows, count, to);
            });
            c += width;
        }
    }

    template <int R, int V>
    INLINE void add_products(const T* grad, const T* rows, int64_t count, T* to) const {
        Vec<T> total[R][V] = {};
        for (int64_t m = 0; m < count; m++) {
            Vec<T> x[V];
            load_vectors<T, V>(x, rows + m * V * kLane);
            UNROLL for (int r = 0; r < R; r++) {
                const Vec<T> weight = broadcast(grad[m * a_.grad_row + r]);
                UNROLL for (int v = 0; v < V; v++) total[r][v] += weight * x[v];
            }
        }
        UNROLL for (int r = 0; r < R; r++) add_to<T, V>(to + r * width_, total[r]);
    }

    const WeightArguments& a_;
    const int threads_;
    const int64_t width_;
    Arena room_;
};
