// A gated linear recurrence over sequences, and its gradient.
//
// The rows of a sequence follow each other; a row has the gates of all channels, then their values. Neither sequences
// nor channels know of each other: a thread walks all frames of some channels of a sequence and waits for nobody.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cells.h"

// Field by field what scan.py packs: 64 bits each. M rows, R sequences, C channels.
struct ScanArguments {
    int64_t is_bfloat16, threads, num_sequences, num_rows, channels;
    const int64_t* ptr;    // [R + 1], where a sequence begins; or none where all are of one length
    const void* gates;     // [M, 2 C]
    const void* first;     // [R, C]
    void* carry;           // [R, C]: at first `first`, then the last state; backward the gradients of the two
    void* out;             // [M, C]
    const void* grad;      // of `out`
    void* grad_gates;      // [M, 2 C]
};

// The state keeps `keep` of itself and takes 1 - `keep`, both exact to their last bits.
INLINE void gate(Vec<float> decay, Vec<float>& keep, Vec<float>& take) {
    const Vec<float> bound = broadcast(87.0f), below = decay > bound ? bound : decay;
    const Vec<float> e = exp_within(below < -bound ? -bound : below);
    take = 1 / (1 + e);
    keep = e * take;
}

INLINE void gate(Vec<double> decay, Vec<double>& keep, Vec<double>& take) {
    keep = sigmoid(decay);
    take = sigmoid(-decay);
}

template <class T>
INLINE Vec<T> load_as(const T* from) {
    return load(from);
}

INLINE Vec<float> load_as(const uint16_t* from) { return load_bfloat16(from); }

template <class T>
INLINE void store_as(T* to, Vec<T> value) {
    store(to, value);
}

INLINE void store_as(uint16_t* to, Vec<float> value) { store_bfloat16(to, value); }

// T computes, and E is stored in rows: the same, or bfloat16.
template <class T, class E>
class Scan {
   public:
    static constexpr int kLane = kLanes<T>;

    explicit Scan(const ScanArguments& a) : a_(a), c_(a.channels) {}

    void forward() const {
        for_sequences([&](int64_t sequence, Range rows, Range channels) {
            for (int64_t row = rows.begin; row < rows.end; row += kFrames)
                for_strips(channels, [&](int64_t channel, auto strip) {
                    walk<strip.vectors>(sequence, {row, std::min(row + kFrames, rows.end)}, channel, strip);
                });
        });
    }

    void backward() const {
        for_sequences([&](int64_t sequence, Range rows, Range channels) {
            for (int64_t end = rows.end; end > rows.begin; end -= kFrames)
                for_strips(channels, [&](int64_t channel, auto strip) {
                    const Range block{std::max(end - kFrames, rows.begin), end};
                    walk_back<strip.vectors>(sequence, rows.begin, block, channel, strip);
                });
        });
    }

   private:
    // All channels take so many frames before the next ones, for rows lie together. Walked from the last frame to the
    // first, the next ones are fetched meanwhile: processors do not foresee them.
    static constexpr int64_t kFrames = 8;

    // V vectors side by side.
    template <int V>
    struct Whole {
        static constexpr int vectors = V;

        template <class S>
        INLINE Vec<T> read(const S* from) const {
            return load_as(from);
        }

        template <class S>
        INLINE void write(S* to, Vec<T> value) const {
            store_as(to, value);
        }
    };

    // The first channels of a vector.
    struct Part {
        static constexpr int vectors = 1;
        int64_t count;

        template <class S>
        INLINE Vec<T> read(const S* from) const {
            S room[kLane] = {};
            std::memcpy(room, from, count * sizeof(S));
            return load_as(room);
        }

        template <class S>
        INLINE void write(S* to, Vec<T> value) const {
            S room[kLane];
            store_as(room, value);
            std::memcpy(to, room, count * sizeof(S));
        }
    };

    template <class Run>
    static INLINE void for_strips(Range channels, Run run) {
        int64_t c = channels.begin;
        for (; c + 4 * kLane <= channels.end; c += 4 * kLane) run(c, Whole<4>());
        for (; c + kLane <= channels.end; c += kLane) run(c, Whole<1>());
        if (c < channels.end) run(c, Part{channels.end - c});
    }

    // Calls `run(sequence, rows, channels)` for all sequences; for some channels at a time, where there are more threads.
    template <class Run>
    void for_sequences(Run run) const {
        const int64_t vectors = (c_ + kLane - 1) / kLane, length = a_.num_rows / a_.num_sequences;
        const int threads = count_threads(a_.threads, 16.0 * a_.num_rows * c_);
        const int64_t parts = std::min(vectors, (threads + a_.num_sequences - 1) / a_.num_sequences);
        const auto part = [&](int64_t number) {
            const int64_t s = number / parts, part = number % parts;
            const Range channels{vectors * part / parts * kLane, std::min(vectors * (part + 1) / parts * kLane, c_)};
            if (a_.ptr == nullptr)
                run(s, {s * length, (s + 1) * length}, channels);
            else
                run(s, {a_.ptr[s], a_.ptr[s + 1]}, channels);
        };
        const int64_t count = a_.num_sequences * parts;
        if (threads <= 1) {
            for (int64_t number = 0; number < count; number++) part(number);
            return;
        }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (int64_t number = 0; number < count; number++) part(number);
#endif
    }

    template <int V, class Strip>
    INLINE void walk(int64_t sequence, Range rows, int64_t channel, Strip strip) const {
        const int64_t width = c_;
        T* const carry = static_cast<T*>(a_.carry) + sequence * width + channel;
        const E* gates = static_cast<const E*>(a_.gates) + 2 * rows.begin * width + channel;
        E* out = static_cast<E*>(a_.out) + rows.begin * width + channel;
        Vec<T> h[V];
        UNROLL for (int v = 0; v < V; v++) h[v] = strip.read(carry + v * kLane);
        for (int64_t row = rows.begin; row < rows.end; row++, gates += 2 * width, out += width)
            UNROLL for (int v = 0; v < V; v++) {
                Vec<T> keep, take;
                gate(strip.read(gates + v * kLane), keep, take);
                h[v] += take * (strip.read(gates + width + v * kLane) - h[v]);
                strip.write(out + v * kLane, h[v]);
            }
        UNROLL for (int v = 0; v < V; v++) strip.write(carry + v * kLane, h[v]);
    }

    template <int V, class Strip>
    INLINE void walk_back(int64_t sequence, int64_t start, Range rows, int64_t channel, Strip strip) const {
        const int64_t width = c_;
        T* const carry = static_cast<T*>(a_.carry) + sequence * width + channel;
        const T* const first = static_cast<const T*>(a_.first) + sequence * width + channel;
        const E* gates = static_cast<const E*>(a_.gates) + 2 * rows.end * width + channel;
        const E* out = static_cast<const E*>(a_.out) + (rows.end - 1) * width + channel;
        const E* grad = static_cast<const E*>(a_.grad) + rows.end * width + channel;
        E* grad_gates = static_cast<E*>(a_.grad_gates) + 2 * rows.end * width + channel;
        Vec<T> g[V];
        UNROLL for (int v = 0; v < V; v++) g[v] = strip.read(carry + v * kLane);
        for (int64_t row = rows.end - 1; row >= rows.begin; row--) {
            gates -= 2 * width, out -= width, grad -= width, grad_gates -= 2 * width;
            for (int64_t half : {int64_t(0), width}) {
                fetch<V>(gates + half - 2 * kFrames * width);
                fetch<V, 1>(grad_gates + half - 2 * kFrames * width);
            }
            fetch<V>(out - kFrames * width);
            fetch<V>(grad - kFrames * width);
            UNROLL for (int v = 0; v < V; v++) {
                Vec<T> keep, take;
                gate(strip.read(gates + v * kLane), keep, take);
                const Vec<T> before = row > start ? strip.read(out + v * kLane) : strip.read(first + v * kLane);
                g[v] += strip.read(grad + v * kLane);
                const Vec<T> taken = g[v] * take, change = before - strip.read(gates + width + v * kLane);
                strip.write(grad_gates + v * kLane, taken * keep * change);
                strip.write(grad_gates + width + v * kLane, taken);
                g[v] -= taken;
            }
        }
        UNROLL for (int v = 0; v < V; v++) strip.write(carry + v * kLane, g[v]);
    }

    template <int V, int ForWriting = 0>
    static INLINE void fetch(const E* from) {
        const char* const bytes = reinterpret_cast<const char*>(from);
        UNROLL for (int b = 0; b < V * kLane * int(sizeof(E)); b += 64) __builtin_prefetch(bytes + b, ForWriting);
    }

    const ScanArguments& a_;
    const int64_t c_;
};

// Calls `run` with the Scan of the arguments' types.
template <class T, class Run>
void with_scan(const ScanArguments& a, Run run) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (a.is_bfloat16) return run(Scan<T, uint16_t>(a));
    }
    run(Scan<T, T>(a));
}
