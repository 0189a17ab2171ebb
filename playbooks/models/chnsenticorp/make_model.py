# SPDX-License-Identifier: Apache-2.0
"""Makes the SavedModel beside this file: a BERT-like sentiment classifier, small enough to live in a repository.

    python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
    venv/bin/python make_model.py        # writes 1623831335/ and sample.json, replacing what is there

It has the shape of the real thing (token, position and segment embeddings, two layers of self-attention, a pooler, a softmax over two
classes; the inputs and outputs of an exported BERT classifier; variables in two shards) and none of its knowledge: the weights are
random, from a fixed seed.
"""
import json
import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
VERSION = 1623831335
VOCABULARY, HIDDEN, HEADS, INNER, LAYERS, LENGTH, CLASSES = 21128, 16, 2, 64, 2, 128, 2
HERE = os.path.dirname(os.path.abspath(__file__))


def variable(name, shape, device):
    with tf1.device(device):
        start = tf1.truncated_normal_initializer(stddev=0.2, seed=len(name) + sum(shape))
        return tf1.get_variable(name, shape, tf.float32, start, use_resource=False)


def dense(x, width, name):
    kernel = variable(name + "/kernel", [x.shape[-1], width], "/cpu:1")
    bias = variable(name + "/bias", [width], "/cpu:1")
    return tf.tensordot(x, kernel, 1) + bias


def norm(x, name):
    gamma = variable(name + "/gamma", [HIDDEN], "/cpu:1")
    mean, spread = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf1.rsqrt(spread + 1e-12) * (1.0 + gamma)


def attention(x, mask, name):
    def heads(part):
        y = tf.reshape(dense(x, HIDDEN, f"{name}/{part}"), [-1, LENGTH, HEADS, HIDDEN // HEADS])
        return tf.transpose(y, [0, 2, 1, 3])

    scores = tf.matmul(heads("query"), heads("key"), transpose_b=True) / np.sqrt(HIDDEN / HEADS)
    scores += (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -10000.0
    mixed = tf.matmul(tf.nn.softmax(scores), heads("value"))
    return dense(tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, LENGTH, HIDDEN]), HIDDEN, f"{name}/output")


def classifier(ids, mask, segments):
    words = variable("bert/embeddings/word_embeddings", [VOCABULARY, HIDDEN], "/cpu:0")
    places = variable("bert/embeddings/position_embeddings", [LENGTH, HIDDEN], "/cpu:1")
    types = variable("bert/embeddings/token_type_embeddings", [2, HIDDEN], "/cpu:1")
    x = norm(tf.gather(words, ids) + tf.gather(types, segments) + places, "bert/embeddings/LayerNorm")
    for layer in range(LAYERS):
        name = f"bert/encoder/layer_{layer}"
        x = norm(x + attention(x, mask, f"{name}/attention"), f"{name}/attention/LayerNorm")
        x = norm(x + dense(tf.nn.gelu(dense(x, INNER, f"{name}/intermediate")), HIDDEN, f"{name}/output"), f"{name}/output/LayerNorm")
    pooled = tf.tanh(dense(x[:, 0, :], HIDDEN, "bert/pooler"))
    return tf.nn.softmax(dense(pooled, CLASSES, "classifier"), name="probabilities")


def sample():
    """One sentence as a tokenizer would leave it: [CLS] words [SEP], padded with zeros."""
    ids = [101] + np.random.RandomState(7).randint(670, 7992, 30).tolist() + [102]
    pad = [0] * (LENGTH - len(ids))
    row = {"input_ids": ids + pad, "input_mask": [1] * len(ids) + pad, "segment_ids": [0] * LENGTH}
    return {"signature_name": "serving_default", "instances": [row]}


def main():
    where = os.path.join(HERE, str(VERSION))
    shutil.rmtree(where, ignore_errors=True)
    with tf.Graph().as_default(), tf1.Session(config=tf1.ConfigProto(device_count={"CPU": 2})) as session:
        tf1.set_random_seed(1623831335)
        inputs = {name: tf1.placeholder(tf.int32, [None, LENGTH], name=name) for name in ("input_ids", "input_mask", "segment_ids")}
        outputs = {"probabilities": classifier(*inputs.values())}
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(where)
        signature = tf1.saved_model.predict_signature_def(inputs, outputs)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, strip_default_attrs=True)
        builder.save()
        request = sample()
        answer = session.run(outputs, {inputs[k]: [row[k] for row in request["instances"]] for k in inputs})
        print(answer["probabilities"])
    with open(os.path.join(HERE, "sample.json"), "w", encoding="utf-8") as f:
        json.dump(request, f, separators=(",", ":"))
        f.write("\n")


main()
