// SPDX-License-Identifier: Apache-2.0
// What is issued is judged by OpenSSL's own verifier, at times of our choosing.
#include "certificate.h"
#include "check.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct pair {
    struct er_buf cert, key;
};

static struct er_random random_source;

static struct pair issue(const struct er_certificate *wanted) {
    struct pair pair = {{.max = 65536}, {.max = 65536, .secret = true}};
    struct er_error err = {0};
    CHECK(er_certificate_issue(wanted, &pair.cert, &pair.key, &err) == ER_OK);
    CHECK_STR(err.message, "");
    return pair;
}

static struct pair issue_ca(void) {
    return issue(&(struct er_certificate){.common_name = "test ca",
                                          .authority = true,
                                          .not_before_s = 1000,
                                          .not_after_s = 9000,
                                          .random = &random_source});
}

static void release(struct pair *pair) {
    er_buf_release(&pair->cert);
    er_buf_release(&pair->key);
}

static const char *const names[] = {"a.example", "*.b.example", "127.0.0.1", "::1"};

static struct pair issue_leaf(const struct pair *ca, bool client) {
    return issue(&(struct er_certificate){.common_name = "leaf",
                                          .organization = "system:masters",
                                          .names = names,
                                          .name_count = 4,
                                          .client = client,
                                          .not_before_s = 2000,
                                          .not_after_s = 3000,
                                          .ca_cert = {ca->cert.data, ca->cert.length},
                                          .ca_key = {ca->key.data, ca->key.length},
                                          .random = &random_source});
}

static X509 *read_cert(const struct pair *pair) {
    BIO *bio = BIO_new_mem_buf(pair->cert.data, (int)pair->cert.length);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    CHECK(cert);
    return cert;
}

// X509_V_OK or why the leaf is not accepted for `purpose` at `time`.
static int verify(const struct pair *ca, const struct pair *leaf, int purpose, time_t time) {
    X509 *ca_cert = read_cert(ca), *cert = read_cert(leaf);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    X509_STORE_add_cert(store, ca_cert);
    X509_STORE_CTX_init(context, store, cert, NULL);
    X509_STORE_CTX_set_purpose(context, purpose);
    X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(context), time);
    X509_verify_cert(context);
    int result = X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    X509_free(ca_cert);
    X509_free(cert);
    return result;
}

static void a_leaf_is_accepted_for_its_purpose_and_time_alone(void) {
    struct pair ca = issue_ca(), server = issue_leaf(&ca, false), client = issue_leaf(&ca, true);
    CHECK(verify(&ca, &server, X509_PURPOSE_SSL_SERVER, 2500) == X509_V_OK);
    CHECK(verify(&ca, &client, X509_PURPOSE_SSL_CLIENT, 2500) == X509_V_OK);
    CHECK(verify(&ca, &server, X509_PURPOSE_SSL_CLIENT, 2500) == X509_V_ERR_INVALID_PURPOSE);
    CHECK(verify(&ca, &client, X509_PURPOSE_SSL_SERVER, 2500) == X509_V_ERR_INVALID_PURPOSE);
    CHECK(verify(&ca, &server, X509_PURPOSE_SSL_SERVER, 1999) == X509_V_ERR_CERT_NOT_YET_VALID);
    CHECK(verify(&ca, &server, X509_PURPOSE_SSL_SERVER, 3001) == X509_V_ERR_CERT_HAS_EXPIRED);
    release(&server);
    release(&client);
    release(&ca);
}

static void another_ca_of_the_same_name_is_no_help(void) {
    struct pair ca = issue_ca(), other = issue_ca(), leaf = issue_leaf(&ca, false);
    CHECK(verify(&other, &leaf, X509_PURPOSE_SSL_SERVER, 2500) != X509_V_OK);
    release(&ca);
    release(&other);
    release(&leaf);
}

static void a_leaf_cannot_sign(void) {
    struct pair ca = issue_ca(), leaf = issue_leaf(&ca, false), below = issue_leaf(&leaf, false);
    CHECK(verify(&leaf, &below, X509_PURPOSE_SSL_SERVER, 2500) != X509_V_OK);
    release(&ca);
    release(&leaf);
    release(&below);
}

static void names_are_those_that_were_asked_for(void) {
    struct pair ca = issue_ca(), leaf = issue_leaf(&ca, false);
    X509 *cert = read_cert(&leaf);
    CHECK(X509_check_host(cert, "a.example", 0, 0, NULL) == 1);
    CHECK(X509_check_host(cert, "x.b.example", 0, 0, NULL) == 1);
    CHECK(X509_check_host(cert, "x.a.example", 0, 0, NULL) == 0);
    CHECK(X509_check_host(cert, "leaf", 0, 0, NULL) == 0);
    CHECK(X509_check_ip_asc(cert, "127.0.0.1", 0) == 1);
    CHECK(X509_check_ip_asc(cert, "::1", 0) == 1);
    CHECK(X509_check_ip_asc(cert, "127.0.0.2", 0) == 0);
    char text[64];
    CHECK(X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_organizationName, text, sizeof text) > 0);
    CHECK_STR(text, "system:masters");
    X509_free(cert);
    release(&leaf);
    release(&ca);
}

static void serial_numbers_differ_and_follow_the_seed(void) {
    er_random_seed(&random_source, 1);
    struct pair a = issue_ca(), b = issue_ca();
    er_random_seed(&random_source, 1);
    struct pair again = issue_ca();
    X509 *first = read_cert(&a), *second = read_cert(&b), *third = read_cert(&again);
    CHECK(ASN1_INTEGER_cmp(X509_get_serialNumber(first), X509_get_serialNumber(second)) != 0);
    CHECK(ASN1_INTEGER_cmp(X509_get_serialNumber(first), X509_get_serialNumber(third)) == 0);
    EVP_PKEY *key = X509_get0_pubkey(first), *other = X509_get0_pubkey(third);
    CHECK(EVP_PKEY_eq(key, other) == 0); // a seed makes no keys
    X509_free(first);
    X509_free(second);
    X509_free(third);
    release(&a);
    release(&b);
    release(&again);
}

int main(void) {
    return check_run((struct check_test[]){
        {"a_leaf_is_accepted_for_its_purpose_and_time_alone", a_leaf_is_accepted_for_its_purpose_and_time_alone},
        {"another_ca_of_the_same_name_is_no_help", another_ca_of_the_same_name_is_no_help},
        {"a_leaf_cannot_sign", a_leaf_cannot_sign},
        {"names_are_those_that_were_asked_for", names_are_those_that_were_asked_for},
        {"serial_numbers_differ_and_follow_the_seed", serial_numbers_differ_and_follow_the_seed},
        {0},
    });
}
