// The weighted sums of relu(src_j + dst_i + edge_ji) over the edges of each destination, and their gradients.
//
// Everything here handles one frame and one strip of V vectors of channels. Weights of the frame's heads begin at
// `lane`.
#pragma once

#include "scores.h"

template <class T>
struct Sums {
    const Arguments& a;
    const Strip<T>& strip;
    Lanes<T> weights;
    int64_t lane;

    // Of head k in a tensor [N, F, K, H].
    INLINE int64_t shift(int64_t k) const { return k * a.hidden; }

    INLINE int64_t edge_offset(int64_t e) const {
        const int64_t frame = a.edge_frames > 1 ? strip.frame : 0;
        return (e * a.edge_frames + frame) * a.hidden + strip.first;
    }

    INLINE const T* edge_row(int64_t e, T* room) const {
        if (strip.is_direct()) return reinterpret_cast<const T*>(a.edge) + edge_offset(e);
        load_elements(room, a.edge, edge_offset(e), strip.valid, strip.width, strip.kind);
        return room;
    }

    template <int V>
    INLINE void write_edge(int64_t e, const Vec<T> (&values)[V]) const {
        T room[V * kLanes<T>];
        UNROLL for (int c = 0; c < V; c++) store(room + c * kLanes<T>, values[c]);
        store_elements(a.grad_edge, edge_offset(e), room, strip.valid, strip.kind);
    }
};

// h = relu(own + row + edge's row), `own` the vectors of the node whose edges are walked.
template <class T, int V, bool HasEdge>
INLINE void hidden(const Sums<T>& sums, int64_t e, const Vec<T> (&own)[V], const T* row, Vec<T> (&h)[V]) {
    load_vectors<T, V>(h, row);
    UNROLL for (int c = 0; c < V; c++) h[c] += own[c];
    if constexpr (HasEdge) {
        T room[V * kLanes<T>];
        const T* edge = sums.edge_row(e, room);
        UNROLL for (int c = 0; c < V; c++) h[c] += load(edge + c * kLanes<T>);
    }
    UNROLL for (int c = 0; c < V; c++) h[c] = relu<T>(h[c]);
}

// Writes the sums of K heads from `first_head` on.
template <class T, int V, int K, bool HasEdge>
void sum_edges(const Sums<T>& sums, const Incidence& incoming, Range ranks, const Gather<T>& src, int64_t first_head) {
    const auto& strip = sums.strip;
    T room[V * kLanes<T>];
    for (int64_t place = ranks.begin; place < ranks.end; place++) {
        const int64_t rank = incoming.rank(place), node = incoming.node(rank);
        Vec<T> own[V], total[K][V] = {};
        load_vectors<T, V>(own, strip.read(sums.a.dst, node, room));
        for (int64_t e = incoming.ptr[rank]; e < incoming.ptr[rank + 1]; e++) {
            Vec<T> h[V];
            hidden<T, V, HasEdge>(sums, e, own, src.at(incoming.ends[e]), h);
            const T* weight = sums.weights.edge(e) + sums.lane + first_head;
            UNROLL for (int k = 0; k < K; k++) {
                const Vec<T> w = broadcast(weight[k]);
                UNROLL for (int c = 0; c < V; c++) total[k][c] += w * h[c];
            }
        }
        UNROLL for (int k = 0; k < K; k++)
            strip.template write_vectors<V>(sums.a.sum, node, total[k], sums.shift(first_head + k));
    }
}

template <class T, int V, bool HasEdge>
void sum_heads(const Sums<T>& sums, const Incidence& incoming, Range ranks, const Gather<T>& src) {
    int64_t k = 0;
    for (; k + 4 <= sums.a.heads; k += 4) sum_edges<T, V, 4, HasEdge>(sums, incoming, ranks, src, k);
    for (; k < sums.a.heads; k++) sum_edges<T, V, 1, HasEdge>(sums, incoming, ranks, src, k);
}

// Gradients that belong to an edge or to its ends; null where they are not wanted.
template <class T>
struct SumGradients {
    Lanes<T> weights;  // added to
    T* src;            // [N, width], added to; `src_node` from one node to the next
    int64_t src_node;
    T* edge;           // [E, edge_width], added to: the gradient of an edge tensor that is the same in all frames
    int64_t edge_width;
};

// Walks the incoming edges of each destination: gradients of `dst`, of the weights and of `edge`, and, into a tile, of
// `src`. `upstream` has room for the K rows of a destination's gradient.
template <class T, int V, bool OneHead, bool HasEdge>
void push_gradients(const Sums<T>& sums, const Incidence& incoming, Range ranks, const Gather<T>& src,
                    const SumGradients<T>& gradients, T* upstream) {
    constexpr int lanes = kLanes<T>;
    const auto& a = sums.a;
    const auto& strip = sums.strip;
    T room[V * lanes];
    for (int64_t place = ranks.begin; place < ranks.end; place++) {
        const int64_t rank = incoming.rank(place), node = incoming.node(rank);
        Vec<T> own[V], first[V], total[V] = {};
        load_vectors<T, V>(own, strip.read(a.dst, node, room));
        load_vectors<T, V>(first, strip.read(a.sum, node, room));
        for (int64_t k = 1; !OneHead && k < a.heads; k++) {
            T* const to = upstream + k * V * lanes;
            const T* row = strip.read(a.sum, node, to, sums.shift(k));
            if (row != to) std::memcpy(to, row, V * lanes * sizeof(T));
        }
        for (int64_t e = incoming.ptr[rank]; e < incoming.ptr[rank + 1]; e++) {
            const int64_t other = incoming.ends[e];
            const T* weight = sums.weights.edge(e) + sums.lane;
            T* const found = gradients.weights.data != nullptr ? gradients.weights.edge(e) + sums.lane : nullptr;
            Vec<T> h[V], gradient[V];
            hidden<T, V, HasEdge>(sums, e, own, src.at(other), h);
            const Vec<T> w = broadcast(weight[0]);
            Vec<T> product = h[0] * first[0];
            UNROLL for (int c = 1; c < V; c++) product += h[c] * first[c];
            UNROLL for (int c = 0; c < V; c++) gradient[c] = w * first[c];
            if (found != nullptr) found[0] += sum<T>(product);
            for (int64_t k = 1; !OneHead && k < a.heads; k++) {
                const T* row = upstream + k * V * lanes;
                const Vec<T> w = broadcast(weight[k]);
                Vec<T> product = {};
                UNROLL for (int c = 0; c < V; c++) {
                    const Vec<T> g = load(row + c * lanes);
                    product += h[c] * g;
                    gradient[c] += w * g;
                }
                if (found != nullptr) found[k] += sum<T>(product);
            }
            UNROLL for (int c = 0; c < V; c++) {
                gradient[c] = where_active<T>(h[c], gradient[c]);
                total[c] += gradient[c];
            }
            if (gradients.src != nullptr) add_to<T, V>(gradients.src + other * gradients.src_node, gradient);
            if constexpr (HasEdge) {
                if (gradients.edge != nullptr)
                    add_to<T, V>(gradients.edge + e * gradients.edge_width + strip.first, gradient);
                else if (a.grad_edge != nullptr)
                    sums.write_edge(e, gradient);
            }
        }
        if (a.grad_dst.data != nullptr) strip.template write_vectors<V>(a.grad_dst, node, total);
    }
}

// Walks the outgoing edges of each source: the gradient of `src`.
template <class T, int V, bool HasEdge>
void pull_gradients(const Sums<T>& sums, const Incidence& outgoing, Range ranks, const Gather<T>& dst,
                    const Gather<T>& upstream) {
    constexpr int lanes = kLanes<T>;
    const auto& a = sums.a;
    const auto& strip = sums.strip;
    T room[V * lanes];
    for (int64_t node = ranks.begin; node < ranks.end; node++) {
        Vec<T> own[V], total[V] = {};
        load_vectors<T, V>(own, strip.read(a.src, node, room));
        for (int64_t place = outgoing.ptr[node]; place < outgoing.ptr[node + 1]; place++) {
            const int64_t e = outgoing.edge(place), other = outgoing.ends[e];
            const T* weight = sums.weights.edge(e) + sums.lane;
            Vec<T> h[V], gradient[V] = {};
            hidden<T, V, HasEdge>(sums, e, own, dst.at(other), h);
            for (int64_t k = 0; k < a.heads; k++) {
                const T* row = upstream.at(other, k);
                const Vec<T> w = broadcast(weight[k]);
                UNROLL for (int c = 0; c < V; c++) gradient[c] += w * load(row + c * lanes);
            }
            UNROLL for (int c = 0; c < V; c++) total[c] += where_active<T>(h[c], gradient[c]);
        }
        strip.template write_vectors<V>(a.grad_src, node, total);
    }
}
