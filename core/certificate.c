// SPDX-License-Identifier: Apache-2.0
#include "certificate.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

// What is under way; released in one place.
struct issue {
    const struct er_certificate *wanted;
    X509 *cert;
    EVP_PKEY *key;
    X509 *ca_cert; // a reference to `cert` itself for a CA
    EVP_PKEY *ca_key;
    struct er_error *err;
};

static void release(struct issue *issue) {
    X509_free(issue->cert);
    X509_free(issue->ca_cert);
    EVP_PKEY_free(issue->key);
    EVP_PKEY_free(issue->ca_key);
    ERR_clear_error();
}

static enum er_status openssl(struct issue *issue, bool done, const char *action) {
    return done ? ER_OK : er_openssl_fail(issue->err, action);
}

static BIO *open_pem(const struct er_pem *pem) {
    return pem->length <= INT_MAX ? BIO_new_mem_buf(pem->bytes, (int)pem->length) : NULL;
}

// An encrypted key must not make OpenSSL ask on the terminal.
static int no_password(char *into, int size, int writing, void *data) {
    (void)into, (void)size, (void)writing, (void)data;
    return -1;
}

static enum er_status read_ca(struct issue *issue) {
    BIO *cert = open_pem(&issue->wanted->ca_cert), *key = open_pem(&issue->wanted->ca_key);
    if (cert && key) {
        issue->ca_cert = PEM_read_bio_X509(cert, NULL, no_password, NULL);
        issue->ca_key = PEM_read_bio_PrivateKey(key, NULL, no_password, NULL);
    }
    BIO_free(cert);
    BIO_free(key);
    if (!issue->ca_cert || !issue->ca_key) {
        er_openssl_fail(issue->err, issue->ca_cert ? "cannot read the CA's key" : "cannot read the CA's certificate");
        return issue->err->status = issue->err->status == ER_NO_MEMORY ? ER_NO_MEMORY : ER_INVALID;
    }
    if (X509_check_private_key(issue->ca_cert, issue->ca_key) != 1) {
        return er_fail(issue->err, ER_INVALID, "the CA's key does not belong to its certificate");
    }
    return ER_OK;
}

static enum er_status own_ca(struct issue *issue) {
    X509_up_ref(issue->cert);
    EVP_PKEY_up_ref(issue->key);
    issue->ca_cert = issue->cert;
    issue->ca_key = issue->key;
    return ER_OK;
}

static enum er_status set_serial(struct issue *issue) {
    unsigned char bytes[16];
    enum er_status status = er_random_bytes(issue->wanted->random, bytes, sizeof bytes);
    if (status != ER_OK) {
        return er_fail(issue->err, status, "no random bytes for a serial number");
    }
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); // positive, and always of the same length
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool done = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(issue->cert));
    BN_free(number);
    return openssl(issue, done, "cannot set the serial number");
}

static enum er_status set_validity(struct issue *issue) {
    int64_t from = issue->wanted->not_before_s, to = issue->wanted->not_after_s;
    if (from > to) {
        return er_fail(issue->err, ER_INVALID, "the certificate would end before it begins");
    }
    bool done = ASN1_TIME_set(X509_getm_notBefore(issue->cert), (time_t)from) &&
                ASN1_TIME_set(X509_getm_notAfter(issue->cert), (time_t)to);
    return openssl(issue, done, "cannot set the validity");
}

static bool add_to_name(X509_NAME *name, const char *field, const char *text) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)text, -1, -1, 0);
}

static enum er_status set_names(struct issue *issue) {
    const struct er_certificate *wanted = issue->wanted;
    X509_NAME *name = X509_get_subject_name(issue->cert);
    bool done = (!wanted->organization || add_to_name(name, "O", wanted->organization)) &&
                add_to_name(name, "CN", wanted->common_name) &&
                X509_set_issuer_name(issue->cert, X509_get_subject_name(issue->ca_cert));
    enum er_status status = openssl(issue, done, "cannot set the name"); // too long, or not UTF-8
    return status == ER_INTERNAL ? issue->err->status = ER_INVALID : status;
}

static enum er_status add_extension(struct issue *issue, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issue->ca_cert, issue->cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool done = extension && X509_add_ext(issue->cert, extension, -1);
    X509_EXTENSION_free(extension);
    return openssl(issue, done, "cannot add an extension");
}

struct extension {
    int nid;
    const char *value;
};

static enum er_status add_extensions(struct issue *issue, const struct extension *list) {
    enum er_status status = ER_OK;
    for (; status == ER_OK && list->value; list++) {
        status = add_extension(issue, list->nid, list->value);
    }
    return status;
}

static enum er_status add_purpose(struct issue *issue) {
    static const struct extension ca[] = {
        {NID_basic_constraints, "critical,CA:TRUE"},
        {NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign"},
        {NID_subject_key_identifier, "hash"},
        {0, NULL},
    };
    static const struct extension leaf[] = {
        {NID_basic_constraints, "critical,CA:FALSE"},
        {NID_key_usage, "critical,digitalSignature"},
        {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid:always"},
        {0, NULL},
    };
    if (issue->wanted->authority) {
        return add_extensions(issue, ca);
    }
    enum er_status status = add_extensions(issue, leaf);
    return status == ER_OK
               ? add_extension(issue, NID_ext_key_usage, issue->wanted->client ? "clientAuth" : "serverAuth")
               : status;
}

static bool is_host_name(const char *name) {
    size_t length = strlen(name);
    return length && length <= 253 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._*") == length;
}

static GENERAL_NAME *new_general_name(const char *text) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value = a2i_IPADDRESS(text); // NULL unless it is an address
    int type = value ? GEN_IPADD : GEN_DNS;
    if (!value) {
        value = ASN1_IA5STRING_new();
        if (value && !ASN1_STRING_set(value, text, -1)) {
            ASN1_STRING_free(value);
            value = NULL;
        }
    }
    if (!name || !value) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(value);
        return NULL;
    }
    GENERAL_NAME_set0_value(name, type, value);
    return name;
}

static bool add_general_name(GENERAL_NAMES *names, const char *text) {
    GENERAL_NAME *name = new_general_name(text);
    if (name && sk_GENERAL_NAME_push(names, name) > 0) {
        return true;
    }
    GENERAL_NAME_free(name);
    return false;
}

static enum er_status check_alternative_names(struct issue *issue) {
    for (size_t i = 0; i < issue->wanted->name_count; i++) {
        const char *text = issue->wanted->names[i];
        ASN1_OCTET_STRING *address = a2i_IPADDRESS(text);
        bool good = address || is_host_name(text);
        ASN1_OCTET_STRING_free(address);
        if (!good) {
            return er_fail(issue->err, ER_INVALID, "'%.80s' is neither a host name nor an address", text);
        }
    }
    return ER_OK;
}

static enum er_status add_alternative_names(struct issue *issue) {
    if (!issue->wanted->name_count) {
        return ER_OK;
    }
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool done = names;
    for (size_t i = 0; done && i < issue->wanted->name_count; i++) {
        done = add_general_name(names, issue->wanted->names[i]);
    }
    done = done && X509_add1_ext_i2d(issue->cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return openssl(issue, done, "cannot add the alternative names");
}

static enum er_status begin(struct issue *issue) {
    issue->key = EVP_EC_gen("P-256");
    issue->cert = X509_new();
    bool done = issue->key && issue->cert && X509_set_version(issue->cert, X509_VERSION_3) &&
                X509_set_pubkey(issue->cert, issue->key);
    return openssl(issue, done, "cannot make a key");
}

static enum er_status sign(struct issue *issue) {
    return openssl(issue, X509_sign(issue->cert, issue->ca_key, EVP_sha256()) > 0, "cannot sign");
}

static enum er_status copy_out(struct issue *issue, BIO *bio, bool written, struct er_buf *into) {
    char *text = NULL;
    long length = written ? BIO_get_mem_data(bio, &text) : 0;
    enum er_status status =
        written ? er_buf_add(into, text, (size_t)length) : er_openssl_fail(issue->err, "cannot write PEM");
    BIO_free(bio); // wipes it
    return status == ER_OK || !written ? status : er_fail(issue->err, status, "cannot keep a PEM text");
}

static enum er_status write_out(struct issue *issue, struct er_buf *cert, struct er_buf *key) {
    BIO *bio = BIO_new(BIO_s_mem());
    enum er_status status = copy_out(issue, bio, bio && PEM_write_bio_X509(bio, issue->cert), cert);
    if (status == ER_OK) {
        bio = BIO_new(BIO_s_mem());
        status =
            copy_out(issue, bio, bio && PEM_write_bio_PKCS8PrivateKey(bio, issue->key, NULL, NULL, 0, NULL, NULL), key);
    }
    return status;
}

enum er_status er_certificate_issue(const struct er_certificate *wanted, struct er_buf *cert, struct er_buf *key,
                                    struct er_error *err) {
    struct issue issue = {.wanted = wanted, .err = err};
    enum er_status (*const steps[])(struct issue *) = {
        check_alternative_names,
        begin,
        wanted->authority ? own_ca : read_ca,
        set_serial,
        set_validity,
        set_names,
        add_purpose,
        add_alternative_names,
        sign,
    };
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < sizeof steps / sizeof *steps; i++) {
        status = steps[i](&issue);
    }
    if (status == ER_OK) {
        status = write_out(&issue, cert, key);
    }
    release(&issue);
    return status;
}
