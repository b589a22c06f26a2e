// Resizes 8-bit images by sums over weights in units of 2^-22, first along the rows, then along the columns; each pass is
// rounded.
//
// Shape legend: N images of H x W pixels, to S x S; K taps of each sample.

#include <memory>
#include <new>

#include "../ops/native/teams.h"

struct Taps {
    int64_t count;
    const int64_t* index;   // [K, S]
    const int32_t* weight;  // [K, S]
};

// Field by field what drawing.py packs: 64 bits each.
struct ResizeArguments {
    int64_t threads, num_images, height, width, size;
    Taps across, down;
    const uint8_t* columns;  // [W, N, H]
    uint8_t* out;            // [N, S, S]
};

static_assert(sizeof(ResizeArguments) == 13 * 8, "as many fields as Python packs");

constexpr int kFractionBits = 22;

INLINE int32_t rounded(int32_t sum) { return (sum + (1 << (kFractionBits - 1))) >> kFractionBits; }

// `sums` has room for H or S, `wide` for H * S.
static void resize(const ResizeArguments& a, int64_t image, int32_t* sums, uint8_t* wide) {
    const int64_t size = a.size, height = a.height;
    for (int64_t s = 0; s < size; s++) {
        std::memset(sums, 0, height * sizeof(int32_t));
        for (int64_t k = 0; k < a.across.count; k++) {
            const int32_t weight = a.across.weight[k * size + s];
            const uint8_t* const column = a.columns + (a.across.index[k * size + s] * a.num_images + image) * height;
#pragma omp simd
            for (int64_t h = 0; h < height; h++) sums[h] += weight * column[h];
        }
        for (int64_t h = 0; h < height; h++) wide[h * size + s] = uint8_t(rounded(sums[h]));
    }
    for (int64_t y = 0; y < size; y++) {
        std::memset(sums, 0, size * sizeof(int32_t));
        for (int64_t k = 0; k < a.down.count; k++) {
            const int32_t weight = a.down.weight[k * size + y];
            const uint8_t* const row = wide + a.down.index[k * size + y] * size;
#pragma omp simd
            for (int64_t x = 0; x < size; x++) sums[x] += weight * row[x];
        }
        uint8_t* const out = a.out + (image * size + y) * size;
        for (int64_t x = 0; x < size; x++) out[x] = uint8_t(rounded(sums[x]));
    }
}

extern "C" __attribute__((visibility("default"))) int rstg_resize(const ResizeArguments* a) {
    const int64_t room = a->height > a->size ? a->height : a->size, area = a->height * a->size;
    const double sums = double(a->num_images * area) * double(a->across.count);
    const int threads = count_threads(a->threads < a->num_images ? a->threads : a->num_images, sums);
    std::unique_ptr<int32_t[]> total(new (std::nothrow) int32_t[room * threads]);
    std::unique_ptr<uint8_t[]> wide(new (std::nothrow) uint8_t[area * threads]);
    if (!total || !wide) return 1;
    const auto run = [&](int64_t part) {
        for (int64_t i = a->num_images * part / threads; i < a->num_images * (part + 1) / threads; i++)
            resize(*a, i, total.get() + part * room, wide.get() + part * area);
    };
    if (threads <= 1) {
        run(0);
        return 0;
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t part = 0; part < threads; part++) run(part);
#endif
    return 0;
}
