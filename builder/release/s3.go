package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// bucket is a Store in an object store with Amazon's S3 interface. A reader finds an object whole or not at all.
type bucket struct {
	client *minio.Client
	name   string
	prefix string
}

// OpenS3 opens s3://BUCKET/PREFIX. Where the store is and who asks is taken from the environment and the files that Amazon's
// own tools use: AWS_ENDPOINT_URL (default https://s3.amazonaws.com), AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
func OpenS3(place string, getenv func(string) string) (Store, error) {
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.RawQuery != "" {
		return nil, fmt.Errorf("cannot use place %q: want s3://BUCKET or s3://BUCKET/PREFIX", place)
	}
	endpoint := getenv("AWS_ENDPOINT_URL")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" {
		return nil, fmt.Errorf("cannot use AWS_ENDPOINT_URL %q: want a URL such as https://s3.example.org", endpoint)
	}
	c, err := minio.New(e.Host, &minio.Options{
		Creds:  credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}),
		Secure: e.Scheme != "http",
		Region: getenv("AWS_REGION"),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use place %q: %w", place, err)
	}
	return &bucket{c, u.Host, strings.Trim(u.Path, "/")}, nil
}

func (b *bucket) key(name string) string { return path.Join(b.prefix, name) }

// failed names what failed, and says fs.ErrNotExist where that is why.
func (b *bucket) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	switch minio.ToErrorResponse(err).StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("s3://%s/%s: %w", b.name, b.key(name), fs.ErrNotExist)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("s3://%s/%s: %w", b.name, b.key(name), errChanged)
	}
	return fmt.Errorf("s3://%s/%s: %w", b.name, b.key(name), err)
}

// Get implements Store.
func (b *bucket) Get(ctx context.Context, name string) ([]byte, error) {
	data, _, err := b.get(ctx, name)
	return data, err
}

// get reads an object and tells its entity tag.
func (b *bucket) get(ctx context.Context, name string) ([]byte, string, error) {
	o, err := b.client.GetObject(ctx, b.name, b.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, "", b.failed(name, err)
	}
	defer o.Close()
	info, err := o.Stat()
	if err != nil {
		return nil, "", b.failed(name, err)
	}
	const most = 8 << 20 // bytes: more than metadata may have
	if info.Size > most {
		return nil, "", b.failed(name, fmt.Errorf("has %d bytes, more than %d", info.Size, most))
	}
	data, err := io.ReadAll(o)
	return data, info.ETag, b.failed(name, err)
}

// Size implements Store.
func (b *bucket) Size(ctx context.Context, name string) (int64, error) {
	info, err := b.client.StatObject(ctx, b.name, b.key(name), minio.StatObjectOptions{})
	return info.Size, b.failed(name, err)
}

// Put implements Store.
func (b *bucket) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	_, err := b.client.PutObject(ctx, b.name, b.key(name), r, size, putOptions(name))
	return b.failed(name, err)
}

// List implements Store.
func (b *bucket) List(ctx context.Context, folder string) ([]string, error) {
	var names []string
	o := minio.ListObjectsOptions{Prefix: b.key(folder) + "/", Recursive: true}
	for object := range b.client.ListObjectsIter(ctx, b.name, o) {
		if object.Err != nil {
			return nil, b.failed(folder, object.Err)
		}
		names = append(names, strings.TrimPrefix(strings.TrimPrefix(object.Key, b.prefix), "/"))
	}
	return names, nil
}

// Remove implements Store.
func (b *bucket) Remove(ctx context.Context, name string) error {
	return b.failed(name, b.client.RemoveObject(ctx, b.name, b.key(name), minio.RemoveObjectOptions{}))
}

// Replace implements Store.
func (b *bucket) Replace(ctx context.Context, name string, old, data []byte) error {
	now, tag, err := b.get(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(now, old) {
		return b.failed(name, errChanged)
	}
	o := putOptions(name)
	if tag == "" {
		o.SetMatchETagExcept("*")
	} else {
		o.SetMatchETag(tag)
	}
	_, err = b.client.PutObject(ctx, b.name, b.key(name), bytes.NewReader(data), int64(len(data)), o)
	return b.failed(name, err)
}

// putOptions say what a file is, and how long caches between the store and the devices may keep it: the timestamp alone ever
// changes.
func putOptions(name string) minio.PutObjectOptions {
	o := minio.PutObjectOptions{
		ContentType: "application/octet-stream", CacheControl: "public, max-age=31536000, immutable",
		// The body as it is, with its MD5: the signed chunks that are usual without TLS are not understood by every store.
		DisableContentSha256: true, SendContentMd5: true,
	}
	if strings.HasSuffix(name, ".json") {
		o.ContentType = "application/json"
	}
	if path.Base(name) == "timestamp.json" {
		o.CacheControl = "no-cache"
	}
	return o
}
