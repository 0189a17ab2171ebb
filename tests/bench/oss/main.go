// SPDX-License-Identifier: Apache-2.0

// The official Go SDK v2, measured: `bench tree|one|parts WORKERS PATH` uploads a folder's files, a file in one request, or a file with
// the SDK's own uploader, and prints the seconds that took.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func connect() *oss.Client {
	keys := credentials.NewStaticCredentialsProvider(os.Getenv("OSS_KEY_ID"), os.Getenv("OSS_KEY_SECRET"), "")
	return oss.NewClient(oss.LoadDefaultConfig().WithCredentialsProvider(keys).WithRegion("cn-hangzhou").WithEndpoint(os.Getenv("OSS_ENDPOINT")))
}

func put(client *oss.Client, key string, path string) {
	_, err := client.PutObjectFromFile(context.TODO(),
		&oss.PutObjectRequest{Bucket: oss.Ptr(os.Getenv("OSS_BUCKET")), Key: oss.Ptr(key)}, path)
	check(err)
}

func tree(client *oss.Client, workers int, folder string) {
	names := make(chan string)
	var group sync.WaitGroup
	for i := 0; i < workers; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for name := range names {
				put(client, "go/"+name, filepath.Join(folder, name))
			}
		}()
	}
	entries, err := os.ReadDir(folder)
	check(err)
	for _, entry := range entries {
		names <- entry.Name()
	}
	close(names)
	group.Wait()
}

func parts(client *oss.Client, workers int, path string) {
	uploader := oss.NewUploader(client, func(o *oss.UploaderOptions) { o.ParallelNum = workers; o.PartSize = 8 << 20 })
	_, err := uploader.UploadFile(context.TODO(),
		&oss.PutObjectRequest{Bucket: oss.Ptr(os.Getenv("OSS_BUCKET")), Key: oss.Ptr("go.bin")}, path)
	check(err)
}

func main() {
	workers, err := strconv.Atoi(os.Args[2])
	check(err)
	client, path := connect(), os.Args[3]
	started := time.Now()
	switch os.Args[1] {
	case "tree":
		tree(client, workers, path)
	case "one":
		put(client, "go.bin", path)
	case "parts":
		parts(client, workers, path)
	}
	fmt.Println(time.Since(started).Seconds())
}
