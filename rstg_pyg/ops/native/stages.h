// Stages one after the other in one call, for few rows such as the next frame of a stream: calls between their small
// products would take longer than they do. Without gradients.
//
// Shape legend: R rows (nodes times frames), N nodes, C channels in, O out, P of positions, H hidden, U of the update,
// G gates.
#pragma once

#include "cells.h"
#include "forward.h"

enum StageKind : int64_t { kSpace = 0, kLstm = 1, kGru = 2 };

// Field by field what stages.py packs, 64 bits each.
struct Stage {
    int64_t kind, channels, outputs, residual, is_normed;
    double eps;
    const void *norm_weight, *norm_bias;  // [C], or none
    // Of a space stage.
    int64_t hidden, update, heads, ends_active;
    const void *src, *dst, *dst_bias;    // [H, C], [H, C], [H]
    const void *pe_src, *pe_dst;         // [H, P]
    const void *query, *key;             // [O, C]
    const void *last, *last_bias;        // [O, H], [O]
    const void *first, *first_bias;      // [U, C + O], [U]
    const void *second, *second_bias;    // [O, U], [O]; or none, and U is O
    // Of a time stage.
    const void *of_input, *of_state;     // [G * O, C], [G * O, O]
    const void *input_bias, *state_bias; // [G * O]
    const void *h, *c;                   // [R, O], or none: zero
    void *next_h, *next_c;               // [R, O]
    void* alpha;                         // of a space stage [E, F, heads], or none: nobody asks
};

struct StagesArguments {
    int64_t threads, num_stages, num_nodes, num_edges, num_frames, pe_channels;
    const int64_t *nodes, *ptr, *sources, *destinations;
    const void *x, *pe;  // [R, C], [N, P]
    void* out;           // [R, O] of the last stage
};

// Rows `row` apart.
template <class T>
struct Rows {
    T* data;
    int64_t row;

    Rows from(int64_t channel) const { return {data + channel, row}; }
    operator Rows<const T>() const { return {data, row}; }
};

// A weight [outputs, depth] and its bias, or none.
template <class T>
struct Weight {
    const T* data;
    int64_t row;
    const T* bias;
    int64_t outputs, depth;

    Weight(const void* weight, const void* bias, int64_t outputs, int64_t depth)
        : data(static_cast<const T*>(weight)), row(depth), bias(static_cast<const T*>(bias)), outputs(outputs),
          depth(depth) {}

    // Some of the outputs, from all inputs.
    Weight of_outputs(int64_t begin, int64_t count) const {
        Weight part = *this;
        part.data += begin * row;
        part.bias += bias == nullptr ? 0 : begin;
        part.outputs = count;
        return part;
    }

    // All outputs, from some of the inputs.
    Weight of_inputs(int64_t begin, int64_t count) const {
        Weight part = *this;
        part.data += begin;
        part.depth = count;
        return part;
    }

    Weight without_bias() const {
        Weight part = *this;
        part.bias = nullptr;
        return part;
    }
};

// So many sums fill a vector of 16 bytes, and accumulators of them and of so many rows the registers.
template <class T>
constexpr int kSums = 16 / int(sizeof(T));
template <class T>
constexpr int kFewRows = (kVectorBytes == 64 ? 20 : 12) / kSums<T>;

template <class T, int R, int O>
INLINE void multiply_block(Rows<const T> x, const Weight<T>& w, int64_t output, bool adds, Rows<T> to) {
    const T* const weights = w.data + output * w.row;
    Vec<T> total[R][O] = {};
    int64_t c = 0;
    for (; c + kLanes<T> <= w.depth; c += kLanes<T>) {
        Vec<T> value[R];
        UNROLL for (int r = 0; r < R; r++) value[r] = load(x.data + r * x.row + c);
        UNROLL for (int o = 0; o < O; o++) {
            const Vec<T> one = load(weights + o * w.row + c);
            UNROLL for (int r = 0; r < R; r++) total[r][o] += value[r] * one;
        }
    }
    T found[R][O];
    UNROLL for (int r = 0; r < R; r++) sum_each<T>(total[r], found[r]);
    for (; c < w.depth; c++)
        for (int r = 0; r < R; r++)
            for (int o = 0; o < O; o++) found[r][o] += x.data[r * x.row + c] * weights[o * w.row + c];
    UNROLL for (int r = 0; r < R; r++) {
        T* const place = to.data + r * to.row + output;
        UNROLL for (int o = 0; o < O; o++)
            place[o] = (adds ? place[o] : 0) + (w.bias != nullptr ? w.bias[output + o] : 0) + found[r][o];
    }
}

// Writes, or adds, x W^T + b for `count` rows.
template <class T>
void multiply(int64_t threads, Rows<const T> x, int64_t count, const Weight<T>& w, Rows<T> to, bool adds = false) {
    const auto some = [&](int64_t begin, int64_t end) {
        for_rows<kSums<T>>(begin, end, [&](int64_t output, auto outputs) {
            for_rows<kFewRows<T>>(0, count, [&](int64_t r, auto rows) {
                multiply_block<T, rows, outputs>({x.data + r * x.row, x.row}, w, output, adds,
                                                 {to.data + r * to.row, to.row});
            });
        });
    };
    const int parts = count_threads(threads, double(count) * w.outputs * w.depth / 8);
    if (parts <= 1) return some(0, w.outputs);
#ifdef _OPENMP
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int64_t part = 0; part < parts; part++) some(w.outputs * part / parts, w.outputs * (part + 1) / parts);
#endif
}

template <class T>
void rectify(T* values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = 0 > values[i] ? 0 : values[i];
}

// One stage; `x` and `out` are rows side by side.
template <class T>
class StageRun {
   public:
    StageRun(const StagesArguments& a, const Stage& s, const T* x, T* out)
        : a_(a), s_(s), rows_(a.num_nodes * a.num_frames), x_{x, s.channels}, out_{out, s.outputs}, room_(bytes()) {}

    void run() {
        if (s_.kind == kSpace)
            space();
        else if (s_.kind == kGru)
            time<true>();
        else
            time<false>();
    }

   private:
    int64_t edges_size() const { return a_.num_edges * a_.num_frames * s_.heads; }

    size_t bytes() const {
        const auto of = [&](int64_t channels) { return Arena::bytes<T>(rows_ * channels); };
        if (s_.kind != kSpace) return of(4 * s_.outputs) + of(s_.outputs);
        return 2 * of(s_.hidden) + 3 * of(s_.outputs) + of(s_.heads * s_.hidden) + of(s_.update) +
               Arena::bytes<T>(edges_size());
    }

    Rows<T> take(int64_t channels) { return {room_.take<T>(rows_ * channels), channels}; }

    void product(Rows<const T> x, const Weight<T>& w, Rows<T> to, bool adds = false) const {
        multiply<T>(a_.threads, x, rows_, w, to, adds);
    }

    void space() {
        const int64_t channels = s_.channels, outputs = s_.outputs, width = outputs / s_.heads;
        const auto src = take(s_.hidden), dst = take(s_.hidden), query = take(outputs), key = take(outputs);
        product(x_, {s_.src, nullptr, s_.hidden, channels}, src);
        product(x_, {s_.dst, s_.dst_bias, s_.hidden, channels}, dst);
        if (a_.pe != nullptr) {
            add_pe(s_.pe_src, src);
            add_pe(s_.pe_dst, dst);
        }
        product(x_, {s_.query, nullptr, outputs, channels}, query);
        product(x_, {s_.key, nullptr, outputs, channels}, key);
        const T scale = 1 / std::sqrt(T(width));
        for (int64_t i = 0; i < rows_ * outputs; i++) query.data[i] *= scale;

        const auto summed = take(s_.heads * s_.hidden), gathered = take(outputs), hidden = take(s_.update);
        gather(src, dst, query, key, summed);
        const Weight<T> last(s_.last, s_.last_bias, outputs, s_.hidden);
        for (int64_t k = 0; k < s_.heads; k++)
            product(summed.from(k * s_.hidden), last.of_outputs(k * width, width), gathered.from(k * width));
        silence_isolated(gathered);

        const auto into = s_.second == nullptr ? out_ : hidden;
        const Weight<T> first(s_.first, s_.first_bias, s_.update, channels + outputs);
        product(x_, first.of_inputs(0, channels), into);
        product(gathered, first.of_inputs(channels, outputs).without_bias(), into, true);
        if (s_.second != nullptr) {
            rectify(hidden.data, rows_ * s_.update);
            product(hidden, {s_.second, s_.second_bias, outputs, s_.update}, out_);
        }
        if (s_.ends_active) rectify(out_.data, rows_ * outputs);
    }

    void add_pe(const void* of_pe, Rows<T> to) const {
        const Rows<const T> pe{static_cast<const T*>(a_.pe), a_.pe_channels};
        const Weight<T> weight(of_pe, nullptr, s_.hidden, a_.pe_channels);
        for (int64_t f = 0; f < a_.num_frames; f++)
            multiply<T>(a_.threads, pe, a_.num_nodes, weight, {to.data + f * to.row, a_.num_frames * to.row}, true);
    }

    void gather(Rows<T> src, Rows<T> dst, Rows<T> query, Rows<T> key, Rows<T> summed) {
        const auto operand = [&](Rows<T> rows) {
            return Operand{reinterpret_cast<char*>(rows.data), a_.num_frames * rows.row, rows.row};
        };
        Arguments g{};
        g.kind = kNative<T>;
        g.threads = a_.threads;
        g.num_nodes = a_.num_nodes, g.num_edges = a_.num_edges, g.num_frames = a_.num_frames;
        g.hidden = s_.hidden, g.heads = s_.heads, g.width = s_.outputs / s_.heads;
        g.nodes = a_.nodes, g.ptr = a_.ptr, g.sources = a_.sources, g.destinations = a_.destinations;
        g.src = operand(src), g.dst = operand(dst), g.query = operand(query), g.key = operand(key);
        g.sum = operand(summed);
        g.alpha = s_.alpha != nullptr ? s_.alpha : room_.take<T>(edges_size());
        forward<T>(g);
    }

    // A node without neighbours gathers 0, without the bias. Such nodes come first.
    void silence_isolated(Rows<T> gathered) const {
        const int64_t size = a_.num_frames * gathered.row;
        for (int64_t rank = 0; rank < a_.num_nodes && a_.ptr[rank + 1] == 0; rank++)
            std::memset(gathered.data + a_.nodes[rank] * size, 0, size * sizeof(T));
    }

    template <bool Gru>
    void time() {
        constexpr int gates = Gru ? 3 : 4;
        const int64_t size = s_.outputs, shared = (Gru ? 2 : 4) * size;
        const auto active = take(gates * size), fresh = take(size);
        const Weight<T> of_input(s_.of_input, s_.input_bias, gates * size, s_.channels);
        const Weight<T> of_state(s_.of_state, s_.state_bias, gates * size, size);
        // A state of zeros leaves the bias.
        const int64_t depth = s_.h == nullptr ? 0 : size;
        const Rows<const T> h{static_cast<const T*>(depth == 0 ? s_.of_state : s_.h), depth};
        product(x_, of_input, active);
        product(h, of_state.of_inputs(0, depth).of_outputs(0, shared), active, true);
        if (Gru) product(h, of_state.of_inputs(0, depth).of_outputs(shared, size), fresh);
        for (int64_t r = 0; r < rows_; r++)
            for (int64_t channel = 0; channel < size; channel += kLanes<T>)
                cell<Gru>(active.data + r * active.row + channel, fresh.data, r * size + channel,
                          size - channel < kLanes<T> ? size - channel : kLanes<T>);
    }

    template <bool Gru>
    INLINE void cell(const T* gate, const T* fresh, int64_t place, int64_t count) const {
        const auto state = [&](const void* of) {
            return of == nullptr ? Vec<T>{} : load_some(static_cast<const T*>(of) + place, count);
        };
        constexpr int gates = Gru ? 3 : 4;
        Vec<T> active[gates], out;
        for (int g = 0; g < gates; g++) active[g] = load_some(gate + g * s_.outputs, count);
        if constexpr (Gru) {
            out = gru_cell(active, load_some(fresh + place, count), state(s_.h));
        } else {
            Vec<T> c = state(s_.c);
            out = lstm_cell(active, c);
            store_some(static_cast<T*>(s_.next_c) + place, c, count);
        }
        store_some(out_.data + place, out, count);
        store_some(static_cast<T*>(s_.next_h) + place, out, count);
    }

    // Fewer than a vector's values; the others are 0.
    static INLINE Vec<T> load_some(const T* from, int64_t count) {
        if (count == kLanes<T>) return load(from);
        T room[kLanes<T>] = {};
        std::memcpy(room, from, count * sizeof(T));
        return load(room);
    }

    static INLINE void store_some(T* to, Vec<T> values, int64_t count) {
        std::memcpy(to, &values, count * sizeof(T));
    }

    const StagesArguments& a_;
    const Stage& s_;
    const int64_t rows_;
    const Rows<const T> x_;
    const Rows<T> out_;
    Arena room_;
};

template <class T>
void layer_norm(const Stage& s, const T* x, int64_t rows, T* out) {
    const T *const weight = static_cast<const T*>(s.norm_weight), *const bias = static_cast<const T*>(s.norm_bias);
    for (int64_t r = 0; r < rows; r++, x += s.channels, out += s.channels) {
        T mean = 0, square = 0;
        for (int64_t c = 0; c < s.channels; c++) mean += x[c];
        mean /= T(s.channels);
        for (int64_t c = 0; c < s.channels; c++) square += (x[c] - mean) * (x[c] - mean);
        const T scale = 1 / std::sqrt(square / T(s.channels) + T(s.eps));
        for (int64_t c = 0; c < s.channels; c++)
            out[c] = (x[c] - mean) * scale * (weight == nullptr ? 1 : weight[c]) + (bias == nullptr ? 0 : bias[c]);
    }
}

template <class T>
void run_stages(const StagesArguments& a, const Stage* stages) {
    const int64_t rows = a.num_nodes * a.num_frames;
    int64_t widest = 0;
    for (int64_t i = 0; i < a.num_stages; i++)
        for (int64_t channels : {stages[i].channels, stages[i].outputs}) widest = widest < channels ? channels : widest;
    Arena arena(3 * Arena::bytes<T>(rows * widest));
    T* const room[3] = {arena.take<T>(rows * widest), arena.take<T>(rows * widest), arena.take<T>(rows * widest)};
    const T* x = static_cast<const T*>(a.x);
    for (int64_t i = 0; i < a.num_stages; i++) {
        const Stage& stage = stages[i];
        T* const out = i + 1 == a.num_stages ? static_cast<T*>(a.out) : room[i % 2];
        if (stage.is_normed) layer_norm(stage, x, rows, room[2]);
        StageRun<T>(a, stage, stage.is_normed ? room[2] : x, out).run();
        if (stage.residual)
            for (int64_t j = 0; j < rows * stage.outputs; j++) out[j] += x[j];
        x = out;
    }
}
