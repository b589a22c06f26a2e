// Attention weights: scores of the edges, their softmax over each destination, and the gradients of both.
//
// Lanes are the frames of a block times the heads: the scores of an edge are `[lanes]`, those of a frame begin at
// `lane` and hold its heads.
#pragma once

#include "teams.h"

template <class T>
struct Lanes {
    T* data;
    int64_t count;

    INLINE T* edge(int64_t e) const { return data + e * count; }
};

// The products of `query` with K rows at a time share its loads.
template <class T, int K>
INLINE void dot_rows(const T* query, const T* const (&key)[K], int64_t width, T (&out)[K]) {
    Vec<T> total[K] = {};
    for (int64_t c = 0; c < width; c += kLanes<T>) {
        const Vec<T> q = load(query + c);
        UNROLL for (int k = 0; k < K; k++) total[k] += q * load(key[k] + c);
    }
    UNROLL for (int k = 0; k < K; k++) out[k] = sum<T>(total[k]);
}

// Writes the scores of one head in one frame at `lane`. `room` is for a row of the strip.
template <class T>
void score_edges(const Arguments& a, const Incidence& incoming, Range ranks, const Strip<T>& strip,
                 const Gather<T>& keys, T* room, Lanes<T> scores, int64_t lane) {
    constexpr int step = 4;
    for (int64_t place = ranks.begin; place < ranks.end; place++) {
        const int64_t rank = incoming.rank(place), end = incoming.ptr[rank + 1];
        int64_t e = incoming.ptr[rank];
        if (e == end) continue;
        const T* query = strip.read(a.query, incoming.node(rank), room);
        for (; e + step <= end; e += step) {
            const T* key[step];
            T found[step];
            UNROLL for (int k = 0; k < step; k++) key[k] = keys.at(incoming.ends[e + k]);
            dot_rows(query, key, strip.width, found);
            UNROLL for (int k = 0; k < step; k++) scores.edge(e + k)[lane] = found[k];
        }
        for (; e < end; e++) {
            const T* const key[1] = {keys.at(incoming.ends[e])};
            T found[1];
            dot_rows(query, key, strip.width, found);
            scores.edge(e)[lane] = found[0];
        }
    }
}

// Calls `run(begin, end, lane, count)` for the edges of every destination in `ranks`, some lanes at a time.
constexpr int kLaneStrip = 16;

template <class Run>
INLINE void for_segments(const int64_t* ptr, Range ranks, int64_t num_lanes, Run run) {
    for (int64_t rank = ranks.begin; rank < ranks.end; rank++) {
        const int64_t begin = ptr[rank], end = ptr[rank + 1];
        if (begin == end) continue;
        for (int64_t lane = 0; lane < num_lanes; lane += kLaneStrip) {
            const int64_t left = num_lanes - lane;
            if (left >= kLaneStrip)
                run(begin, end, lane, std::integral_constant<int, kLaneStrip>());
            else
                run(begin, end, lane, int(left));
        }
    }
}

// Replaces scores by weights. `spread`: weights sum to 1 over each destination.
template <class T>
void softmax(const int64_t* ptr, Range ranks, Lanes<T> scores) {
    for_segments(ptr, ranks, scores.count, [&](int64_t begin, int64_t end, int64_t lane, auto count) {
        T largest[kLaneStrip];
        for (int l = 0; l < count; l++) largest[l] = scores.edge(begin)[lane + l];
        for (int64_t e = begin + 1; e < end; e++) {
            const T* s = scores.edge(e) + lane;
            for (int l = 0; l < count; l++) largest[l] = s[l] > largest[l] ? s[l] : largest[l];
        }
        for (int64_t e = begin; e < end; e++) {
            T* s = scores.edge(e) + lane;
            for (int l = 0; l < count; l++) s[l] -= largest[l];
        }
    });
    const int64_t first = ptr[ranks.begin], last = ptr[ranks.end];
    exp_of_negatives(scores.edge(first), (last - first) * scores.count);
    for_segments(ptr, ranks, scores.count, [&](int64_t begin, int64_t end, int64_t lane, auto count) {
        T total[kLaneStrip] = {};
        for (int64_t e = begin; e < end; e++) {
            const T* s = scores.edge(e) + lane;
            for (int l = 0; l < count; l++) total[l] += s[l];
        }
        for (int l = 0; l < count; l++) total[l] = 1 / total[l];
        for (int64_t e = begin; e < end; e++) {
            T* s = scores.edge(e) + lane;
            for (int l = 0; l < count; l++) s[l] *= total[l];
        }
    });
}

// Replaces the gradient of the weights by that of the scores: weight * (gradient - sum of weight * gradient).
template <class T>
void softmax_gradient(const int64_t* ptr, Range ranks, Lanes<T> weights, Lanes<T> gradients) {
    for_segments(ptr, ranks, weights.count, [&](int64_t begin, int64_t end, int64_t lane, auto count) {
        T total[kLaneStrip] = {};
        for (int64_t e = begin; e < end; e++) {
            const T *w = weights.edge(e) + lane, *g = gradients.edge(e) + lane;
            for (int l = 0; l < count; l++) total[l] += w[l] * g[l];
        }
        for (int64_t e = begin; e < end; e++) {
            const T* w = weights.edge(e) + lane;
            T* g = gradients.edge(e) + lane;
            for (int l = 0; l < count; l++) g[l] = w[l] * (g[l] - total[l]);
        }
    });
}

// Writes the gradient of one side of the product in one frame: the other side's rows, weighted by the scores' gradient.
template <class T, int V>
void pull_rows(const Incidence& incidence, Range ranks, const Strip<T>& strip, const Gather<T>& rows,
               Lanes<T> gradients, int64_t lane, const Operand& out) {
    constexpr int lanes = kLanes<T>;
    for (int64_t place = ranks.begin; place < ranks.end; place++) {
        const int64_t rank = incidence.rank(place);
        Vec<T> total[V] = {};
        for (int64_t at = incidence.ptr[rank]; at < incidence.ptr[rank + 1]; at++) {
            const int64_t e = incidence.edge(at);
            const T* row = rows.at(incidence.ends[e]);
            const Vec<T> weight = broadcast(gradients.edge(e)[lane]);
            UNROLL for (int c = 0; c < V; c++) total[c] += weight * load(row + c * lanes);
        }
        strip.template write_vectors<V>(out, incidence.node(rank), total);
    }
}
