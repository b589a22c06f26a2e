// The parts of messages with a product per edge that are not products, for a block of frames and destinations.
//
// Rows of a block are [frames, edges, channels]: all edges of the block's first frame, then those of the next.
#pragma once

#include "teams.h"

// Field by field what messages.py packs: 64 bits each.
struct BlockArguments {
    int64_t kind, threads;
    int64_t num_nodes, num_frames, hidden, heads, width;  // messages have `width` channels per head
    const int64_t *nodes, *ptr, *sources;
    int64_t first_rank, end_rank, first_frame, end_frame;
    Operand src, dst;  // [N, F, H]
    char* edge;        // [E, edge_frames, H]
    int64_t edge_frames;
    void* alpha;               // [E, F, K]
    Operand sum;               // [N, F, K, D], the result or its gradient
    char* rows;                // hidden layer
    char* row_gradients;       // replaced by what passes the hidden layer's activation
    char* messages;            // before their activation
    char* message_gradients;   // result
    void* grad_alpha;          // [E, F, K], result
    Operand grad_src;          // [N, F, H] in the type of the sums, added to
    Operand grad_dst;          // [N, F, H], result
};

static_assert(sizeof(BlockArguments) == 37 * 8, "as many fields as Python packs");

template <class T>
struct BlockSpace {
    int64_t tile_size;
    Arena arena;
    T* tiles;

    explicit BlockSpace(const BlockArguments& a)
        : tile_size(a.num_nodes * 4 * kLanes<T>),
          arena(Arena::bytes<T>(tile_size * a.threads)),
          tiles(arena.take<T>(tile_size * a.threads)) {}

    T* of(const Team& team) const { return tiles + team.member * tile_size; }
};

template <class T>
struct BlockWalk {
    const BlockArguments& a;
    const Team& team;
    const BlockSpace<T>& space;

    Range ranks() const { return share(a.ptr, {a.first_rank, a.end_rank}, team); }

    // Rows of the block, so that a place is found by the edge and the frame.
    Operand rows(char* data, int64_t channels) const {
        const int64_t first = a.ptr[a.first_rank], edges = a.ptr[a.end_rank] - first;
        const int64_t before = (first + a.first_frame * edges) * channels * element_size(Kind(a.kind));
        return {data - before, channels, edges * channels};
    }

    int64_t weight(int64_t e, int64_t frame, int64_t k) const { return (e * a.num_frames + frame) * a.heads + k; }

    // Calls `run(strip, vectors, head)` for the messages' channels in all frames.
    template <class Run>
    void for_heads(Run run) const {
        for (int64_t frame = team.first_frame; frame < team.end_frame; frame++)
            for (int64_t k = 0; k < a.heads; k++)
                for_strips<T>(Kind(a.kind), frame, k * a.width, a.width, Cut::kWide,
                              [&](const Strip<T>& strip, auto vectors) { run(strip, vectors, k); });
    }

    // rows = relu(src_j + dst_i + edge_ji)
    void hidden_rows() const {
        const Operand out = rows(a.rows, a.hidden);
        const Operand edges{a.edge, a.edge_frames * a.hidden, a.edge_frames > 1 ? a.hidden : 0};
        const Range mine = ranks();
        for (int64_t frame = team.first_frame; frame < team.end_frame; frame++)
            for_strips<T>(Kind(a.kind), frame, 0, a.hidden, Cut::kWide, [&](const Strip<T>& strip, auto vectors) {
                const Gather<T> src(a, team, false, a.src, strip, space.tiles);
                hidden_strip<vectors>(strip, mine, src, edges, out);
            });
    }

    template <int V>
    void hidden_strip(const Strip<T>& strip, Range mine, const Gather<T>& src, const Operand& edges,
                      const Operand& out) const {
        T room[V * kLanes<T>];
        for (int64_t rank = mine.begin; rank < mine.end; rank++) {
            Vec<T> own[V];
            load_vectors<T, V>(own, strip.read(a.dst, a.nodes[rank], room));
            for (int64_t e = a.ptr[rank]; e < a.ptr[rank + 1]; e++) {
                Vec<T> h[V];
                load_vectors<T, V>(h, src.at(a.sources[e]));
                UNROLL for (int c = 0; c < V; c++) h[c] += own[c];
                if (a.edge != nullptr) {
                    const T* row = strip.read(edges, e, room);
                    UNROLL for (int c = 0; c < V; c++) h[c] += load(row + c * kLanes<T>);
                }
                UNROLL for (int c = 0; c < V; c++) h[c] = relu<T>(h[c]);
                strip.template write_vectors<V>(out, e, h);
            }
        }
    }

    // sum = sum of alpha * relu(messages)
    void message_sums() const {
        const Operand messages = rows(a.messages, a.heads * a.width);
        const Range mine = ranks();
        for_heads([&](const Strip<T>& strip, auto vectors, int64_t k) {
            sum_strip<vectors>(strip, mine, messages, k);
        });
    }

    template <int V>
    void sum_strip(const Strip<T>& strip, Range mine, const Operand& messages, int64_t k) const {
        T room[V * kLanes<T>];
        const T* const alpha = static_cast<const T*>(a.alpha);
        for (int64_t rank = mine.begin; rank < mine.end; rank++) {
            Vec<T> total[V] = {};
            for (int64_t e = a.ptr[rank]; e < a.ptr[rank + 1]; e++) {
                const T* row = strip.read(messages, e, room);
                const Vec<T> w = broadcast(alpha[weight(e, strip.frame, k)]);
                UNROLL for (int c = 0; c < V; c++) total[c] += w * relu<T>(load(row + c * kLanes<T>));
            }
            strip.template write_vectors<V>(a.sum, a.nodes[rank], total);
        }
    }

    // Gradients of the messages before their activation, and of alpha.
    void message_gradients() const {
        const Operand messages = rows(a.messages, a.heads * a.width);
        const Operand out = rows(a.message_gradients, a.heads * a.width);
        const Range mine = ranks();
        for_heads([&](const Strip<T>& strip, auto vectors, int64_t k) {
            gradient_strip<vectors>(strip, mine, messages, out, k);
        });
    }

    template <int V>
    void gradient_strip(const Strip<T>& strip, Range mine, const Operand& messages, const Operand& out,
                        int64_t k) const {
        T room[V * kLanes<T>];
        const bool is_first = strip.first == k * a.width;
        const T* const alpha = static_cast<const T*>(a.alpha);
        T* const grad_alpha = static_cast<T*>(a.grad_alpha);
        for (int64_t rank = mine.begin; rank < mine.end; rank++) {
            Vec<T> upstream[V];
            load_vectors<T, V>(upstream, strip.read(a.sum, a.nodes[rank], room));
            for (int64_t e = a.ptr[rank]; e < a.ptr[rank + 1]; e++) {
                const int64_t at = weight(e, strip.frame, k);
                const Vec<T> w = broadcast(alpha[at]);
                Vec<T> m[V], gradient[V], product = {};
                load_vectors<T, V>(m, strip.read(messages, e, room));
                UNROLL for (int c = 0; c < V; c++) m[c] = relu<T>(m[c]);
                UNROLL for (int c = 0; c < V; c++) product += m[c] * upstream[c];
                UNROLL for (int c = 0; c < V; c++) gradient[c] = where_active<T>(m[c], w * upstream[c]);
                strip.template write_vectors<V>(out, e, gradient);
                if (grad_alpha != nullptr) grad_alpha[at] = (is_first ? 0 : grad_alpha[at]) + sum<T>(product);
            }
        }
    }

    // Gradients of src and dst from those of the hidden layer. The members of a team share the channels, for two edges
    // may begin at one source.
    void hidden_gradients() const {
        const Cut cut = team.size > 1 ? Cut::kNarrow : Cut::kWide;
        int64_t index = 0;
        for (int64_t frame = team.first_frame; frame < team.end_frame; frame++)
            for_strips<T>(Kind(a.kind), frame, 0, a.hidden, cut, [&](const Strip<T>& strip, auto vectors) {
                if (index++ % team.size == team.member) scatter_strip<vectors>(strip);
            });
    }

    template <int V>
    void scatter_strip(const Strip<T>& strip) const {
        constexpr int lanes = kLanes<T>;
        const Operand hidden = rows(a.rows, a.hidden), gradients = rows(a.row_gradients, a.hidden);
        T* const sources = reinterpret_cast<T*>(a.grad_src.data) + strip.offset(a.grad_src, 0);
        const bool in_place = strip.valid == strip.width && a.num_nodes >= kInPlaceNodes;
        T* const tile = in_place ? sources : space.of(team);
        const int64_t stride = in_place ? a.grad_src.node : strip.width;
        if (!in_place)
            for (int64_t c = 0; c < a.num_nodes * stride; c++) tile[c] = 0;
        T room[V * lanes], other_room[V * lanes];
        for (int64_t rank = a.first_rank; rank < a.end_rank; rank++) {
            Vec<T> total[V] = {};
            for (int64_t e = a.ptr[rank]; e < a.ptr[rank + 1]; e++) {
                const T* h = strip.read(hidden, e, room);
                const T* g = strip.read(gradients, e, other_room);
                Vec<T> gradient[V];
                UNROLL for (int c = 0; c < V; c++) {
                    gradient[c] = where_active<T>(load(h + c * lanes), load(g + c * lanes));
                    total[c] += gradient[c];
                }
                add_to<T, V>(tile + a.sources[e] * stride, gradient);
                if (a.edge != nullptr) strip.template write_vectors<V>(gradients, e, gradient);
            }
            strip.template write_vectors<V>(a.grad_dst, a.nodes[rank], total);
        }
        if (!in_place)
            for (int64_t n = 0; n < a.num_nodes; n++)
                for (int64_t c = 0; c < strip.valid; c++) sources[n * a.grad_src.node + c] += tile[n * stride + c];
    }
};

// Calls `run(walk)` on every thread.
template <class T, class Run>
void walk_block(const BlockArguments& a, int64_t channels, Run run) {
    const double edges = double(a.ptr[a.end_rank] - a.ptr[a.first_rank]);
    const int threads = count_threads(a.threads, double(a.end_frame - a.first_frame) * edges * double(channels));
    on_teams<BlockSpace<T>>(a, threads, a.first_frame, a.end_frame,
                            [&](const Team& team, const BlockSpace<T>& space) { run(BlockWalk<T>{a, team, space}); });
}
