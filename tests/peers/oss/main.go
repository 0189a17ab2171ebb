// SPDX-License-Identifier: Apache-2.0

// The official Go SDK v2 as a peer: `peer sign` signs requests that come as JSON lines, `peer ops` carries out a list of operations.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/signer"
)

const part = 1 << 20

type request struct {
	Version    string            `json:"version"`
	Method     string            `json:"method"`
	Bucket     *string           `json:"bucket"`
	Key        *string           `json:"key"`
	Query      string            `json:"query"`
	Headers    map[string]string `json:"headers"`
	Additional []string          `json:"additional"`
	ID         string            `json:"id"`
	Secret     string            `json:"secret"`
	Token      string            `json:"token"`
	Region     string            `json:"region"`
	Now        int64             `json:"now"`
	Expires    int64             `json:"expires"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func signOne(r request) map[string]string {
	req, err := http.NewRequest(r.Method, "http://host/?"+r.Query, nil)
	check(err)
	req.URL.RawQuery = r.Query
	for name, value := range r.Headers {
		req.Header.Set(name, value)
	}
	product := "oss"
	ctx := &signer.SigningContext{Product: &product, Region: &r.Region, Bucket: r.Bucket, Key: r.Key, Request: req,
		AdditionalHeaders: r.Additional, Time: time.Unix(r.Now, 0),
		Credentials: &credentials.Credentials{AccessKeyID: r.ID, AccessKeySecret: r.Secret, SecurityToken: r.Token}}
	if r.Expires > 0 {
		ctx.AuthMethodQuery = true
		ctx.Time = time.Now().Add(time.Duration(r.Expires) * time.Second)
	}
	if r.Version == "v1" {
		check((&signer.SignerV1{}).Sign(context.TODO(), ctx))
	} else {
		check((&signer.SignerV4{}).Sign(context.TODO(), ctx))
	}
	return map[string]string{"authorization": req.Header.Get("Authorization"), "query": req.URL.RawQuery}
}

func sign() {
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r request
		check(json.Unmarshal(in.Bytes(), &r))
		line, err := json.Marshal(signOne(r))
		check(err)
		fmt.Fprintln(out, string(line))
	}
}

type op struct {
	Op, Key, File, Prefix, Dir string
	Parts                      int
	Keys                       []string
}

type object struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	Etag string `json:"etag"`
}

var errStopped = errors.New("stopped on purpose")

func newClient(stopAt int64) *oss.Client {
	cfg := oss.LoadDefaultConfig().WithRegion(os.Getenv("OSS_REGION")).WithEndpoint(os.Getenv("OSS_ENDPOINT")).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(os.Getenv("OSS_KEY_ID"), os.Getenv("OSS_KEY_SECRET")))
	if stopAt > 0 {
		cfg = cfg.WithHttpClient(&http.Client{Transport: &failing{left: stopAt}}).WithRetryMaxAttempts(1)
	}
	return oss.NewClient(cfg)
}

// A network that is lost after so many parts.
type failing struct{ left int64 }

func (f *failing) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.RawQuery, "partNumber=") {
		f.left--
		if f.left < 0 {
			return nil, errStopped
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

func upload(ctx context.Context, o op, stopAt int64) (*oss.UploadResult, error) {
	uploader := newClient(stopAt).NewUploader(func(u *oss.UploaderOptions) {
		u.PartSize, u.ParallelNum, u.EnableCheckpoint, u.CheckpointDir = part, 3, true, o.Dir
		if stopAt > 0 {
			u.ParallelNum = 1
		}
	})
	bucket := os.Getenv("OSS_BUCKET")
	return uploader.UploadFile(ctx, &oss.PutObjectRequest{Bucket: &bucket, Key: &o.Key}, o.File)
}

func begin(ctx context.Context, c *oss.Client, bucket string, o op) string {
	started, err := c.InitiateMultipartUpload(ctx, &oss.InitiateMultipartUploadRequest{Bucket: &bucket, Key: &o.Key})
	check(err)
	file, err := os.Open(o.File)
	check(err)
	defer file.Close()
	for number := 1; number <= o.Parts; number++ {
		_, err = c.UploadPart(ctx, &oss.UploadPartRequest{Bucket: &bucket, Key: &o.Key, UploadId: started.UploadId,
			PartNumber: int32(number), Body: io.NewSectionReader(file, int64(number-1)*part, part)})
		check(err)
	}
	return *started.UploadId
}

func list(ctx context.Context, c *oss.Client, bucket, prefix string) []object {
	found := []object{}
	pages := c.NewListObjectsV2Paginator(&oss.ListObjectsV2Request{Bucket: &bucket, Prefix: &prefix, MaxKeys: 3})
	for pages.HasNext() {
		page, err := pages.NextPage(ctx)
		check(err)
		for _, o := range page.Contents {
			found = append(found, object{*o.Key, o.Size, strings.Trim(*o.ETag, "\"")})
		}
	}
	return found
}

func remove(ctx context.Context, c *oss.Client, bucket string, keys []string) {
	_, err := c.DeleteObject(ctx, &oss.DeleteObjectRequest{Bucket: &bucket, Key: &keys[0]})
	check(err)
	rest := []oss.DeleteObject{}
	for i := range keys[1:] {
		rest = append(rest, oss.DeleteObject{Key: &keys[i+1]})
	}
	if len(rest) > 0 {
		_, err = c.DeleteMultipleObjects(ctx, &oss.DeleteMultipleObjectsRequest{Bucket: &bucket, Objects: rest})
		check(err)
	}
}

func act(ctx context.Context, c *oss.Client, bucket string, o op) interface{} {
	switch o.Op {
	case "put":
		_, err := c.PutObjectFromFile(ctx, &oss.PutObjectRequest{Bucket: &bucket, Key: &o.Key}, o.File)
		check(err)
	case "multipart":
		_, err := upload(ctx, o, 0)
		check(err)
	case "stopped":
		if _, err := upload(ctx, o, int64(o.Parts)); err == nil {
			check(errors.New("the upload was to fail"))
		}
	case "begin":
		return begin(ctx, c, bucket, o)
	case "get":
		_, err := c.NewDownloader(func(d *oss.DownloaderOptions) { d.PartSize = part }).DownloadFile(ctx,
			&oss.GetObjectRequest{Bucket: &bucket, Key: &o.Key}, o.File)
		check(err)
	case "list":
		return list(ctx, c, bucket, o.Prefix)
	case "delete":
		remove(ctx, c, bucket, o.Keys)
	default:
		check(errors.New("unknown operation " + o.Op))
	}
	return nil
}

func main() {
	if os.Args[1] == "sign" {
		sign()
		return
	}
	var ops []op
	check(json.NewDecoder(os.Stdin).Decode(&ops))
	client, results := newClient(0), []interface{}{}
	for _, o := range ops {
		results = append(results, act(context.TODO(), client, os.Getenv("OSS_BUCKET"), o))
	}
	check(json.NewEncoder(os.Stdout).Encode(results))
}
