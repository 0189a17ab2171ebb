// SPDX-License-Identifier: Apache-2.0
// The client: its options, its birth and its death.
#include "http_internal.h"

#include <string.h>

// ---- birth and death

static bool copy_text(char **copy, const char *text) {
    *copy = text ? er_strdup(text) : NULL;
    return !text || *copy;
}

static bool copy_bytes(char **copy, size_t *length, struct er_bytes bytes) {
    *copy = bytes.data ? er_strndup(bytes.data, bytes.length) : NULL;
    *length = bytes.length;
    return !bytes.data || *copy;
}

static bool copy_options(struct er_http_client *client, const struct er_http_options *options) {
    client->insecure = options->insecure;
    client->max_running = options->max_connections;
    return copy_text(&client->ca_file, options->ca_file) && copy_text(&client->proxy, options->proxy) &&
           copy_text(&client->tls_server_name, options->tls_server_name) &&
           copy_text(&client->user_agent, options->user_agent) &&
           copy_text(&client->session.folder, options->session_folder) &&
           copy_bytes(&client->ca_pem, &client->ca_pem_length, options->ca_pem) &&
           copy_bytes(&client->cert_pem, &client->cert_pem_length, options->cert_pem) &&
           copy_bytes(&client->key_pem, &client->key_pem_length, options->key_pem);
}

static void release(struct er_http_client *client) {
    er_free(client->ca_file);
    er_free(client->proxy);
    er_free(client->tls_server_name);
    er_free(client->user_agent);
    er_free(client->ca_pem);
    er_free(client->cert_pem);
    er_free_secret(client->key_pem, client->key_pem_length);
    er_http_identity_release(&client->identity);
    er_http_session_release(&client->session);
    er_free(client);
}

enum er_status er_http_client_new(struct er_runtime *rt, const struct er_http_options *options,
                                  struct er_http_client **out, struct er_error *err) {
    const struct er_curl *curl = er_curl_open(err);
    if (!curl) {
        return err->status;
    }
    struct er_http_client *client = er_calloc(1, sizeof *client);
    if (!client || !copy_options(client, options)) {
        if (client) {
            release(client);
        }
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    client->rt = rt;
    client->curl = curl;
    er_http_identity_init(client);
    for (size_t i = 0; i < ER_HTTP_POOLS; i++) {
        er_http_pool_init(client, &client->pools[i]);
    }
    *out = client;
    return ER_OK;
}

static void count_closed(struct er_http_client *client) {
    if (--client->closing == 0) {
        release(client);
    }
}

static void on_handle_closed(uv_handle_t *handle) { count_closed(((struct er_http_pool *)handle->data)->client); }

static void on_spare_closed(uv_handle_t *handle) { count_closed(handle->data); }

void er_http_client_free(struct er_http_client *client) {
    while (client->waiting.first) {
        er_http_fail(client->waiting.first, ER_INVALID, "the client was closed while the request waited");
    }
    while (client->running.first) {
        er_http_fail(client->running.first, ER_INVALID, "the client was closed while the request was under way");
    }
    for (size_t i = 0; i < client->idle_count; i++) {
        client->curl->easy_cleanup(client->idle[i]);
    }
    client->closing = 2 * ER_HTTP_POOLS + 1;
    uv_close((uv_handle_t *)&client->spare_time, on_spare_closed);
    for (size_t i = 0; i < ER_HTTP_POOLS; i++) {
        er_http_pool_close(&client->pools[i], on_handle_closed);
    }
}
