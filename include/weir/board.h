/*
 * Deprecated: include weir/stats.h. These are the earlier names of its functions, structs and
 * bounds. They will be removed in version 1.0.
 */
#ifndef WEIR_BOARD_H
#define WEIR_BOARD_H

#include "weir/stats.h"

#define WEIR_BOARD_LABELS WEIR_STATS_LABELS
#define WEIR_NAME_OF_CLIENT WEIR_CLIENT_NAME_SIZE
#define WEIR_DESCRIBED_MAX WEIR_REGISTERED_MAX

#define weir_board_label weir_stats_label
#define weir_board_counts weir_stats_counts /* the struct and the function */
#define weir_heavy_by weir_top_by
#define weir_heavy weir_top_client
#define weir_board_heaviest weir_stats_top_clients
#define weir_board_reveal weir_stats_reveal
#define weir_board_name weir_stats_client_name
#define weir_described weir_registered_limit
#define weir_board_describe weir_stats_register
#define weir_board_catalogue weir_stats_registry
#define weir_board_note weir_stats_record

#endif
