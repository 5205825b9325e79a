"""Where the definitions in torchvision put residual and Inception joins, read from the source by hand."""

# class: (block, above) -> the channels of each gate, in the order of execution
from torch.nn.modules.conv import _ConvNd


def convs(module):
    """All convolutions in the module, in the order of definition."""
    return [m for m in module.modules() if isinstance(m, _ConvNd)]


def ends(block, *names):
    """The sum of the channels of an Inception block's paths, each named by its last module(s)."""
    return sum(convs(getattr(block, n))[-1].out_channels for n in names)


def no_se(module):
    """Is there no squeeze and excitation, plain or quantizable, in the module?"""
    return not any(type(m).__name__.endswith("SqueezeExcitation") for m in module.modules())


def multiscale(b, above):
    """The attention's pools are convolutions where there are any; the MLP is Linear."""
    return [b.attn.output_dim] if convs(b.attn) else []


def inception_a(b, above):
    """Four paths, all with convolutions."""
    return [ends(b, "branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")]


def inception_b(b, above):
    """Two paths of convolutions and a pool that keeps the input's channels."""
    return [ends(b, "branch3x3", "branch3x3dbl_3") + convs(b.branch3x3)[0].in_channels]


def inception_c(b, above):
    """Four paths, all with convolutions."""
    return [ends(b, "branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")]


def inception_d(b, above):
    """Two paths of convolutions and a pool that keeps the input's channels."""
    return [ends(b, "branch3x3_2", "branch7x7x3_4") + convs(b.branch3x3_1)[0].in_channels]


def inception_e(b, above):
    """Four paths; the concats inside two of them are no joins of their own."""
    return [ends(b, "branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool")]


ROWS = {
    "torchvision.models.convnext.CNBlock": lambda b, above: [convs(b.block)[0].out_channels],  # depthwise: all `dim`
    "torchvision.models.densenet._DenseBlock": lambda b, above: [],  # dense
    "torchvision.models.densenet._DenseLayer": lambda b, above: [],  # the concat is of its inputs
    # --- detection: whole models and heads; their concats are of boxes, levels or images, not of channels
    "torchvision.models.detection.faster_rcnn.FasterRCNN": lambda b, above: [],
    "torchvision.models.detection.fcos.FCOS": lambda b, above: [],
    "torchvision.models.detection.fcos.FCOSClassificationHead": lambda b, above: [],  # cat of levels, (N, HWA, K)
    "torchvision.models.detection.fcos.FCOSRegressionHead": lambda b, above: [],  # cats of levels, (N, HWA, 4)
    "torchvision.models.detection.keypoint_rcnn.KeypointRCNN": lambda b, above: [],
    "torchvision.models.detection.mask_rcnn.MaskRCNN": lambda b, above: [],
    "torchvision.models.detection.retinanet.RetinaNet": lambda b, above: [],
    "torchvision.models.detection.retinanet.RetinaNetClassificationHead": lambda b, above: [],  # cat of levels
    "torchvision.models.detection.retinanet.RetinaNetRegressionHead": lambda b, above: [],  # cat of levels
    "torchvision.models.detection.roi_heads.RoIHeads": lambda b, above: [],
    "torchvision.models.detection.rpn.RPNHead": lambda b, above: [],
    "torchvision.models.detection.rpn.RegionProposalNetwork": lambda b, above: [],
    "torchvision.models.detection.ssd.SSD": lambda b, above: [],
    "torchvision.models.detection.ssd.SSDClassificationHead": lambda b, above: [],  # cat of levels
    "torchvision.models.detection.ssd.SSDRegressionHead": lambda b, above: [],  # cat of levels
    "torchvision.models.detection.ssdlite.SSDLiteClassificationHead": lambda b, above: [],  # cat of levels
    "torchvision.models.detection.ssdlite.SSDLiteRegressionHead": lambda b, above: [],  # cat of levels
    # --- efficientnet
    "torchvision.models.efficientnet.FusedMBConv": lambda b, above: [b.out_channels] if b.use_res_connect else [],
    "torchvision.models.efficientnet.MBConv": lambda b, above: (  # with SE, unless another se_layer is handed in
        [b.out_channels] if b.use_res_connect and no_se(b.block) else []
    ),
    # --- googlenet, inception
    "torchvision.models.googlenet.Inception": lambda b, above: [ends(b, "branch1", "branch2", "branch3", "branch4")],
    "torchvision.models.inception.InceptionA": inception_a,
    "torchvision.models.inception.InceptionB": inception_b,
    "torchvision.models.inception.InceptionC": inception_c,
    "torchvision.models.inception.InceptionD": inception_d,
    "torchvision.models.inception.InceptionE": inception_e,
    # --- maxvit
    "torchvision.models.maxvit.MBConv": lambda b, above: [],  # always with SE
    "torchvision.models.maxvit.PartitionAttentionLayer": lambda b, above: [],  # Linear only
    # --- mnasnet, mobilenetv2, mobilenetv3
    "torchvision.models.mnasnet._InvertedResidual": lambda b, above: (
        [convs(b.layers)[-1].out_channels] if b.apply_residual else []
    ),
    "torchvision.models.mobilenetv2.InvertedResidual": lambda b, above: [b.out_channels] if b.use_res_connect else [],
    "torchvision.models.mobilenetv3.InvertedResidual": lambda b, above: (
        [b.out_channels] if b.use_res_connect and no_se(b.block) else []
    ),
    # --- raft
    "torchvision.models.optical_flow.raft.BottleneckBlock": lambda b, above: [convs(b.convnormrelu3)[0].out_channels],
    "torchvision.models.optical_flow.raft.ConvGRU": lambda b, above: [],  # GRU update
    "torchvision.models.optical_flow.raft.MotionEncoder": lambda b, above: [],  # the concat holds the bare flow
    # arguable: coords1 + delta_flow, where delta_flow's convolutions see coords1 but also the hidden state, the
    # context and the correlations: not one common value
    "torchvision.models.optical_flow.raft.RAFT": lambda b, above: [],
    "torchvision.models.optical_flow.raft.ResidualBlock": lambda b, above: [convs(b.convnormrelu2)[0].out_channels],
    # --- quantization (float): the adds and concats go by FloatFunctional
    "torchvision.models.quantization.googlenet.QuantizableInception": lambda b, above: [
        ends(b, "branch1", "branch2", "branch3", "branch4")
    ],
    "torchvision.models.quantization.inception.QuantizableInceptionA": inception_a,
    "torchvision.models.quantization.inception.QuantizableInceptionB": inception_b,
    "torchvision.models.quantization.inception.QuantizableInceptionC": inception_c,
    "torchvision.models.quantization.inception.QuantizableInceptionD": inception_d,
    "torchvision.models.quantization.inception.QuantizableInceptionE": inception_e,
    "torchvision.models.quantization.mobilenetv2.QuantizableInvertedResidual": lambda b, above: (
        [b.out_channels] if b.use_res_connect else []
    ),
    "torchvision.models.quantization.mobilenetv3.QuantizableInvertedResidual": lambda b, above: (
        [b.out_channels] if b.use_res_connect and no_se(b.block) else []
    ),
    # add_relu: relu(out + identity) in one call
    "torchvision.models.quantization.resnet.QuantizableBasicBlock": lambda b, above: [b.conv2.out_channels],
    "torchvision.models.quantization.resnet.QuantizableBottleneck": lambda b, above: [b.conv3.out_channels],
    # --- regnet, resnet
    "torchvision.models.regnet.ResBottleneckBlock": lambda b, above: (
        [convs(b.f.c)[0].out_channels] if no_se(b.f) else []
    ),
    "torchvision.models.resnet.BasicBlock": lambda b, above: [b.conv2.out_channels],
    "torchvision.models.resnet.Bottleneck": lambda b, above: [b.conv3.out_channels],
    # --- segmentation
    "torchvision.models.segmentation.lraspp.LRASPPHead": lambda b, above: [],  # fusion of two resolutions
    # --- squeezenet: both paths start from the squeezed value, not from the block's bare input
    "torchvision.models.squeezenet.Fire": lambda b, above: [ends(b, "expand1x1", "expand3x3")],
    # --- swin
    "torchvision.models.swin_transformer.ShiftedWindowAttention": lambda b, above: [],  # attention biases
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2": lambda b, above: [],  # attention biases
    "torchvision.models.swin_transformer.SwinTransformerBlock": lambda b, above: [],  # Linear only
    "torchvision.models.swin_transformer.SwinTransformerBlockV2": lambda b, above: [],  # Linear only
    # --- video
    "torchvision.models.video.mvit.MViT": lambda b, above: [],  # no joins of its own
    "torchvision.models.video.mvit.MultiscaleAttention": lambda b, above: [],  # x + q stands inside the attention
    # the identity is bare, or Linear of the normed input, and max-pooled at stride. arguable: max-pool after Linear
    "torchvision.models.video.mvit.MultiscaleBlock": multiscale,
    "torchvision.models.video.mvit.Pool": lambda b, above: [],  # concat of the class token, over tokens
    "torchvision.models.video.mvit.PositionalEncoding": lambda b, above: [],  # adds positional parameters
    "torchvision.models.video.resnet.BasicBlock": lambda b, above: [b.conv2[1].num_features],
    "torchvision.models.video.resnet.Bottleneck": lambda b, above: [b.conv3[1].num_features],
    "torchvision.models.video.s3d.SepInceptionBlock3D": lambda b, above: [
        ends(b, "branch0", "branch1", "branch2", "branch3")
    ],
    # --- ops
    "torchvision.ops.deform_conv.DeformConv2d": lambda b, above: [],  # one convolution
    "torchvision.ops.feature_pyramid_network.FeaturePyramidNetwork": lambda b, above: [],  # top-down fusion
}
