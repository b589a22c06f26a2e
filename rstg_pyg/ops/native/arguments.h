// What a call passes, and rows of its tensors.
//
// Shape legend: N nodes, E edges in the order of GraphIndex, F frames, H hidden channels, K heads of D channels.
#pragma once

#include "vectors.h"

enum Kind : int64_t { kFloat = 0, kDouble = 1, kBFloat16 = 2 };

// A node tensor [N, F, ...] whose last dimensions are contiguous; strides in elements; no data where it is absent.
struct Operand {
    char* data;
    int64_t node, frame;
};

// Field by field what attend.py packs: 64 bits each.
struct Arguments {
    int64_t kind, threads;
    int64_t num_nodes, num_edges, num_frames, hidden, heads, width;
    const int64_t *nodes, *ptr, *sources, *destinations;
    Operand src, dst, query, key;
    char* edge;  // [E, edge_frames, H]
    int64_t edge_frames;
    void* alpha;           // [E, F, K]; written by the forward pass where there are queries, else read
    Operand sum;           // [N, F, K, H]; the result, or its gradient in the backward pass
    void* alpha_incoming;  // [E, F, K]; the gradient of alpha as an output
    Operand grad_src, grad_dst, grad_query, grad_key;
    char* grad_edge;
    void* grad_alpha;  // [E, F, K]; where alpha is an input
};

static_assert(sizeof(Arguments) == 45 * 8, "as many fields as Python packs");

// Float and double tensors are computed in their own type, bfloat16 in float.
template <class T>
constexpr Kind kNative = sizeof(T) == 8 ? kDouble : kFloat;

inline int64_t element_size(Kind kind) { return kind == kDouble ? 8 : kind == kFloat ? 4 : 2; }

// Copies `valid` elements at `offset` and fills up to `width` with zeros.
template <class T>
INLINE void load_elements(T* to, const char* data, int64_t offset, int64_t valid, int64_t width, Kind kind) {
    if (sizeof(T) == 8 || kind == kNative<T>) {
        std::memcpy(to, data + offset * sizeof(T), valid * sizeof(T));
    } else {
        const uint16_t* from = reinterpret_cast<const uint16_t*>(data) + offset;
        for (int64_t c = 0; c < valid; c++) {
            const uint32_t bits = uint32_t(from[c]) << 16;
            float value;
            std::memcpy(&value, &bits, sizeof value);
            to[c] = value;
        }
    }
    for (int64_t c = valid; c < width; c++) to[c] = 0;
}

// bfloat16 is rounded to the nearest, ties to even.
template <class T>
INLINE void store_elements(char* data, int64_t offset, const T* from, int64_t valid, Kind kind) {
    if (sizeof(T) == 8 || kind == kNative<T>) {
        std::memcpy(data + offset * sizeof(T), from, valid * sizeof(T));
    } else {
        uint16_t* to = reinterpret_cast<uint16_t*>(data) + offset;
        for (int64_t c = 0; c < valid; c++) {
            const float value = float(from[c]);
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            to[c] = value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        }
    }
}

// A strip of channels [first, first + valid) of one frame, walked in `width` channels: whole vectors.
template <class T>
struct Strip {
    Kind kind;
    int64_t frame;
    int64_t first;
    int64_t valid, width;

    bool is_direct() const { return kind == kNative<T> && valid == width; }

    int64_t offset(const Operand& x, int64_t node) const { return node * x.node + frame * x.frame + first; }

    // Fetches what follows in memory: the next strip, or that of the next frame.
    template <int ForWriting>
    INLINE void fetch_next(const char* data, int64_t at) const {
        const char* next = data + (at + valid) * element_size(kind);
        const int64_t bytes = valid * element_size(kind);
        for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(next + byte, ForWriting);
    }

    // The strip of a node: in place, or in `room`, converted and filled up.
    INLINE const T* read(const Operand& x, int64_t node, T* room, int64_t shift = 0) const {
        const int64_t at = offset(x, node) + shift;
        fetch_next<0>(x.data, at);
        if (is_direct()) return reinterpret_cast<const T*>(x.data) + at;
        load_elements(room, x.data, at, valid, width, kind);
        return room;
    }

    INLINE void write(const Operand& x, int64_t node, const T* from, int64_t shift = 0) const {
        const int64_t at = offset(x, node) + shift;
        fetch_next<1>(x.data, at);
        store_elements(x.data, at, from, valid, kind);
    }

    template <int V>
    INLINE void write_vectors(const Operand& x, int64_t node, const Vec<T> (&from)[V], int64_t shift = 0) const {
        if (is_direct()) {
            const int64_t at = offset(x, node) + shift;
            fetch_next<1>(x.data, at);
            T* to = reinterpret_cast<T*>(x.data) + at;
            UNROLL for (int c = 0; c < V; c++) store(to + c * kLanes<T>, from[c]);
        } else {
            T room[V * kLanes<T>];
            UNROLL for (int c = 0; c < V; c++) store(room + c * kLanes<T>, from[c]);
            write(x, node, room, shift);
        }
    }
};

// Strips of up to four vectors, the last one filled up; or without filling, where channels are whole vectors; or of one.
enum class Cut { kWide, kWhole, kNarrow };

// Calls `run(strip, integral_constant of its vectors)` for strips that cover channels [first, first + count).
template <class T, class Run>
INLINE void for_strips(Kind kind, int64_t frame, int64_t first, int64_t count, Cut cut, Run run) {
    constexpr int lanes = kLanes<T>;
    for (int64_t c = 0; c < count;) {
        const int64_t left = count - c;
        const bool is_wide = cut != Cut::kNarrow && left > (cut == Cut::kWhole ? 4 * lanes - 1 : 2 * lanes);
        const int vectors = is_wide ? 4 : 1;
        const int64_t valid = left < vectors * lanes ? left : vectors * lanes;
        const Strip<T> strip{kind, frame, first + c, valid, vectors * lanes};
        if (vectors == 4)
            run(strip, std::integral_constant<int, 4>());
        else
            run(strip, std::integral_constant<int, 1>());
        c += valid;
    }
}
