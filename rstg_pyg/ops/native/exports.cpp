// What Python calls, computed in the type NUMBER. The functions return 0, 1 if memory ran out, or 2 if an edge ends
// outside of the graph.

#include <initializer_list>

#include "backward.h"
#include "cells.h"
#include "stages.h"
#include "messages.h"
#include "products.h"
#include "scan.h"
#include "sort.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

template <class Run>
static int guarded(Run run) {
    try {
        run();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

static bool are_nodes(const int64_t* ends, int64_t num_edges, int64_t num_nodes) {
    int64_t outside = 0;
    for (int64_t e = 0; e < num_edges; e++) outside |= (ends[e] < 0) | (ends[e] >= num_nodes);
    return outside == 0;
}

EXPORT int rstg_attend_forward(const Arguments* a) {
    for (const int64_t* ends : {a->sources, a->destinations})
        if (!are_nodes(ends, a->num_edges, a->num_nodes)) return 2;
    return guarded([=] { forward<NUMBER>(*a); });
}

EXPORT int rstg_attend_backward(const Arguments* a) {
    return guarded([=] { backward<NUMBER>(*a); });
}

EXPORT int rstg_hidden_rows(const BlockArguments* a) {
    const int64_t first = a->ptr[a->first_rank], end = a->ptr[a->end_rank];
    if (!are_nodes(a->sources + first, end - first, a->num_nodes)) return 2;
    return guarded([=] { walk_block<NUMBER>(*a, a->hidden, [](const auto& walk) { walk.hidden_rows(); }); });
}

EXPORT int rstg_message_sums(const BlockArguments* a) {
    return guarded([=] { walk_block<NUMBER>(*a, a->heads * a->width, [](const auto& walk) { walk.message_sums(); }); });
}

EXPORT int rstg_message_gradients(const BlockArguments* a) {
    return guarded(
        [=] { walk_block<NUMBER>(*a, a->heads * a->width, [](const auto& walk) { walk.message_gradients(); }); });
}

EXPORT int rstg_hidden_gradients(const BlockArguments* a) {
    return guarded([=] { walk_block<NUMBER>(*a, a->hidden, [](const auto& walk) { walk.hidden_gradients(); }); });
}

EXPORT int rstg_weight_gradient(const WeightArguments* a) {
    return guarded([=] { WeightGradient<NUMBER>(*a).run(); });
}

EXPORT int rstg_sort_edges(const SortArguments* a) {
    for (const int64_t* ends : {a->source, a->destination})
        if (!are_nodes(ends, a->num_edges, a->num_nodes)) return 2;
    return guarded([=] { sort_edges(*a); });
}

EXPORT int rstg_cells_forward(const CellArguments* a) {
    return guarded([=] { a->is_gru ? Cells<NUMBER, true>(*a).forward() : Cells<NUMBER, false>(*a).forward(); });
}

EXPORT int rstg_cells_backward(const CellArguments* a) {
    return guarded([=] { a->is_gru ? Cells<NUMBER, true>(*a).backward() : Cells<NUMBER, false>(*a).backward(); });
}

EXPORT int rstg_scan_forward(const ScanArguments* a) {
    return guarded([=] { with_scan<NUMBER>(*a, [](const auto& scan) { scan.forward(); }); });
}

EXPORT int rstg_scan_backward(const ScanArguments* a) {
    return guarded([=] { with_scan<NUMBER>(*a, [](const auto& scan) { scan.backward(); }); });
}

EXPORT int rstg_stages(const StagesArguments* a, const Stage* stages) {
    for (const int64_t* ends : {a->sources, a->destinations})
        if (!are_nodes(ends, a->num_edges, a->num_nodes)) return 2;
    return guarded([=] { run_stages<NUMBER>(*a, stages); });
}
