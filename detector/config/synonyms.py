"""What other frameworks call the keys: Ultralytics, Detectron2, MMDetection, Lightning, torchvision's references."""

from __future__ import annotations

# Keys, and what users of other frameworks write for them, without "_" and "-". Of several keys that mean the same in
# different commands, the first that a command has counts.
OTHER_WORDS: dict[tuple[str, ...], str] = {
    ("optim.lr",): "lr lr0 learningrate baselr initiallr maxlr",
    ("optim.weight_decay",): "wd decay weightdecay l2",
    ("optim.schedule",): "scheduler lrscheduler lrschedule lrpolicy",
    ("optim.warmup_steps",): "warmup warmupiters warmupepochs warmupsteps lrwarmupiters",
    ("optim.clip_norm",): "gradclip clipgrad clipgradnorm gradientclipval maxgradnorm gradclipnorm",
    ("optim.accumulate",): "accumulategradbatches gradientaccumulationsteps gradaccumulation accumulativecounts nbs",
    ("optim.ema",): "emadecay modelema ema",
    ("optim", "optim.name"): "optimizer optimiser opt",
    ("data.batch_size", "batch_size"): "batch batchsize bs imsperbatch imgsperbatch samplespergpu trainbatchsize",
    ("data.eval_batch_size",): "valbatchsize testbatchsize evalbatchsize",
    ("data.workers", "workers"): "workers numworkers nworkers workerspergpu dataloadernumworkers threads",
    ("data.root", "images", "source"): "datadir dataroot datapath datasetdir datasetroot imgdir imagedir imagefolder",
    ("data.train_annotations", "annotations"): "annfile annotation annotationfile trainann trainjson cocojson gt "
    "groundtruth",
    ("trainer.epochs",): "epochs epoch maxepochs maxepoch numepochs nepochs totalepochs numtrainepochs",
    ("trainer.max_steps",): "steps maxiter maxiters iterations numsteps numiterations totalsteps trainsteps",
    ("trainer.devices", "accelerator", "device"): "device devices gpu gpus ngpus numgpus ngpu cudavisibledevices cuda",
    ("trainer.num_nodes",): "nodes nnodes nummachines",
    ("trainer.precision",): "amp useamp fp16 bf16 half mixedprecision precision",
    ("trainer.early_stopping",): "patience earlystop earlystopping earlystoppingpatience",
    ("trainer.eval_every",): "evalinterval valinterval evalperiod evalsteps valcheckinterval checkvaleverynepoch",
    ("trainer.checkpoint_every",): "saveperiod saveinterval savesteps checkpointperiod checkpointinterval",
    ("trainer.log_every",): "loginterval logeverynsteps logperiod printfreq loggingsteps",
    ("model.weights", "checkpoint"): "weights pretrained pretrainedweights pretrainedbackbone weightsbackbone initcfg",
    ("checkpoint", "resume"): "ckpt ckptpath checkpointpath resumefrom loadfrom modelpath model modelfile",
    ("model.min_size", "image_size"): "imgsz imgsize imagesize inputsize imgscale minsizetrain minsizetest resolution",
    ("model.max_size",): "maxsizetrain maxsizetest longside",
    ("model", "model.name"): "arch architecture network net modelname",
    ("model.backbone",): "backbone encoder backbonename encodername",
    ("model.trainable_stages",): "freeze freezeat frozenstages trainablelayers trainablebackbonelayers",
    ("model.norm",): "norm syncbn normtype batchnorm",
    ("model.anchors.sizes",): "anchors anchorsizes anchorscales scales",
    ("model.anchors.aspect_ratios",): "anchorratios aspectratios ratios anchoraspectratios",
    (
        "score_thresh",
        "model.head.score_thresh",
    ): "conf confthres confthresh confthreshold confidence scorethr threshold "
    "scorethreshold scorethreshtest boxscorethresh thresh minscore",
    (
        "model.head.nms_thresh",
    ): "iou iouthres iouthresh iouthreshold nms nmsthr nmsthreshold nmsthreshtest boxnmsthresh",
    ("max_detections", "model.head.detections_per_image"): "maxdet maxdets maxdetections detectionsperimage maxperimg "
    "boxdetectionsperimg topk",
    (
        "run_dir",
        "output_dir",
        "output",
    ): "outputdir outdir workdir savedir savepath logdir resultsdir outputpath rundir defaultrootdir out",
    ("overwrite",): "force existok overwriteok",
    ("source",): "input inputs img image images path video folder imagepath",
    ("predictions",): "dt detections results pred preds predjson resfile",
    ("seed",): "randomseed manualseed rngseed",
    ("roi.output_size",): "poolersize pooleroutputsize poolerresolution poolsize roisize",
    ("roi", "roi.kind"): "pooler poolertype roipool roialign roipooler",
}

# Words for what no key says.
NO_KEY = {
    "the number of classes comes from the annotation file": "numclasses nc classes nclasses",
    "class names come from the annotation file": "names classnames labels labelmap",
}

WORDS = {word: keys for keys, words in OTHER_WORDS.items() for word in words.split()}
EXPLAINED = {word: why for why, words in NO_KEY.items() for word in words.split()}


def plain(key: str) -> str:
    """The last part of a dotted key as the tables have it."""
    return key.rpartition(".")[2].lower().replace("_", "").replace("-", "")
