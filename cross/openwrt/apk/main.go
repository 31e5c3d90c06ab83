// Installs a package file into a root, as `apk add` does, with an implementation of the format other than ours.
//
//	go run . PACKAGE ROOT ARCHITECTURE
package main

import (
	"context"
	"log"
	"os"

	"github.com/chainguard-dev/go-apk/pkg/apk"
	apkfs "github.com/chainguard-dev/go-apk/pkg/fs"
)

// A package that lies in a file.
type file struct{ path string }

func (f file) URL() string            { return f.path }
func (f file) PackageName() string    { return "specter-client" }
func (f file) ChecksumString() string { return "" }

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: go run . PACKAGE ROOT ARCHITECTURE")
	}
	if err := install(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func install(ctx context.Context, path, root, architecture string) error {
	installer, err := apk.New(apk.WithFS(apkfs.DirFS(root)), apk.WithArch(architecture), apk.WithIgnoreMknodErrors(true))
	if err != nil {
		return err
	}
	if err := installer.InitDB(ctx); err != nil {
		return err
	}
	return installer.InstallPackages(ctx, nil, []apk.InstallablePackage{file{path}})
}
